"""Waits until each of some branches has a price list, and says of which day they are."""

import sys
from collections import Counter

import dropr_core as dropr


def main() -> None:
    """Take one message of each branch."""
    days: Counter[str] = Counter()
    for number in range(int(sys.argv[1]), int(sys.argv[2]) + 1):
        with dropr.open(f"branches/branch-{number:03}.yaml") as node:
            for message in node.receive("prices", limit=1, timeout=60):
                days[message.value["day"]] += 1
    for day, count in days.items():
        print(f"{count} branches have the price list of {day}")


if __name__ == "__main__":
    main()
