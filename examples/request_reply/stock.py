"""The warehouse: answers each question by a message of its own."""

import functools

import dropr_core as dropr

STOCK = {7: 42}


@functools.cache
def node() -> dropr.Node:
    """The node of this worker, opened once."""
    return dropr.open("warehouse.yaml")


def answer(work: dropr.Work) -> None:
    """One question. The dedup key makes a second try of the same question harmless."""
    sku = work.value["sku"]
    node().send(
        {"sku": sku, "left": STOCK.get(sku)},
        channel="answers",
        headers={"in-reply-to": str(work.id)},
        dedup_key=f"answer-{work.id}",
    )
