"""The office sends a price list to everybody, and waits until so many branches have it."""

import sys
import time

import dropr_core as dropr


def main() -> None:
    """One send: durable for all when it returns. Who only sends may go home then."""
    with dropr.open("office.yaml") as node:
        sent = node.send({"day": "today", "prices": {"7": 1200, "8": 450}}, channel="prices", expires_in="1d")
        print(f"one message, {len(sent.deliveries)} deliveries, all on the disk")
        while (there := sum(delivery.state == "accepted" for delivery in sent.deliveries)) < int(sys.argv[1]):
            time.sleep(0.1)
        print(f"{there} branches have it")


if __name__ == "__main__":
    main()
