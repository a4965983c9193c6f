"""Functions marked with `dropr.on`, called by real workers, and a worker that starts afresh when their file changes."""

import textwrap

import pytest
from support.nodes import Road, eventually

TASKS = """
    import dataclasses
    import dropr_core as dropr

    @dataclasses.dataclass
    class Order:
        sku: int

    @dropr.on("orders")
    def order(order: Order, work: dropr.Work):
        with open({log!r}, "a") as file:
            file.write("{word} %d %d\\n" % (order.sku, work.attempt))
"""


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    made = Road(tmp_path)
    yield made
    made.close()


def test_a_worker_calls_marked_functions_and_takes_up_new_code(road, tmp_path, monkeypatch):
    """`handlers:` names the module; with --reload a change of it is at work without a restart by hand."""
    log = tmp_path / "log.txt"
    log.touch()
    tasks = textwrap.dedent(TASKS)
    name = road.write_handlers(tasks.format(log=str(log), word="first"))
    (shop,) = road.build("shop", shop={"handlers": name, "channels": {"orders": {"serializer": "json"}}})
    shop.file.chmod(0o600)
    monkeypatch.chdir(tmp_path)
    worker = shop.run("worker", "--reload")
    with shop.opened() as node:
        node.put({"sku": 7}, channel="orders")
        node.put({"sku": "seven"}, channel="orders")
        eventually(lambda: "first 7 1" in log.read_text())
        eventually(lambda: "is buried: this is no Order: sku: expected `int`, got `str`" in worker.text)
        # Watching may begin after the worker does: written again until it is seen.
        eventually(lambda: _rewrite(tmp_path / f"{name}.py", tasks, log) and "starts afresh" in worker.text)
        node.put({"sku": 8}, channel="orders")
        eventually(lambda: "second 8 1" in log.read_text())
    assert worker.stop() == 0


def _rewrite(path, tasks, log):
    path.write_text(tasks.format(log=str(log), word="second"))
    return True
