"""Asks for some articles, and prints the answers in the order of the questions."""

import sys

import dropr_core as dropr


def main() -> None:
    """Ask all at once, then take answers until there is one for each."""
    with dropr.open("shop.yaml") as node:
        asked = {str(node.send({"sku": int(sku)}, channel="questions").id): sku for sku in sys.argv[1:]}
        answers: dict[str, int | None] = {}
        for message in node.receive("answers", timeout=60):
            question = message.headers.get("in-reply-to", "")
            if question not in asked:
                continue  # of a run that did not wait so long; leaving the body acknowledges it
            answers[question] = message.value["left"]
            if len(answers) == len(asked):
                message.ack()
                break
    for question, sku in asked.items():
        if question not in answers:
            print(f"{sku}: no answer in time")
        else:
            print(f"{sku}: not ours" if answers[question] is None else f"{sku}: {answers[question]} in stock")


if __name__ == "__main__":
    main()
