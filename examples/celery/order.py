"""Takes orders: what a page of the shop does."""

from pathlib import Path

from tasks import pack

results = [pack.delay(number) for number in range(1, 4)]
Path("orders.txt").write_text("\n".join(result.id for result in results))
print(len(results), "orders taken, each of them", results[0].state)
