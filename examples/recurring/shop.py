"""Counts shelves when it is time, and sends each number to the office."""

import functools

import dropr_core as dropr

STOCK = {7: 42, 8: 0, 9: 3}


@functools.cache
def node() -> dropr.Node:
    """The node of this worker, opened once."""
    return dropr.open("shop.yaml")


def count(work: dropr.Work) -> None:
    """One due time. A second try sends nothing twice: the dedup key is made of shelf and due time."""
    due = work.headers["dropr-due"]
    for shelf in work.value["shelves"]:
        value = {"due": due, "shelf": shelf, "left": STOCK[shelf]}
        node().send(value, channel="stock", dedup_key=f"stock-{shelf}-{due}")
