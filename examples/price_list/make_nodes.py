"""Writes the configuration of the office and of a hundred branches: ninety at the first address, ten at the second."""

import secrets
import sys
from pathlib import Path

BRANCHES = 100


def main() -> None:
    """Each pair of nodes has a key of its own."""
    first, second = sys.argv[1:]
    names = [f"branch-{number:03}" for number in range(1, BRANCHES + 1)]
    keys = {name: secrets.token_hex(32) for name in names}
    peers = "".join(
        f'  {name}: {{url: "http://{first if number <= 90 else second}/{name}/", key: {keys[name]}}}\n'
        for number, name in enumerate(names, 1)
    )
    office = Path("office.yaml")
    office.touch(0o600)
    office.write_text(
        f"node: office\npeers:\n{peers}groups:\n  everywhere: [{', '.join(names)}]\n"
        "channels:\n  prices: {to: everywhere, serializer: json}\ndelivery: {backoff_max: 5s}\n"
    )
    Path("branches").mkdir()
    for name in names:
        file = Path("branches") / f"{name}.yaml"
        file.touch(0o600)
        file.write_text(
            f"node: {name}\npeers:\n  office: {{mode: pull, key: {keys[name]}}}\n"
            "channels:\n  prices: {serializer: json}\n"
        )


if __name__ == "__main__":
    main()
