"""The result backend by itself: what is stored, where it goes, and waiting for it. No worker runs."""

import contextlib
import os
import threading
import time

import celery_tasks
import pytest
from celery import states
from celery.app.task import Context
from celery.exceptions import ImproperlyConfigured, TimeoutError  # noqa: A004
from celery.utils.objects import Bunch
from dropr_kombu.results.post import CHANNEL
from dropr_kombu.results.shared_table import SharedTable
from dropr_kombu.results.table import Entry, Table
from support.nodes import eventually

from dropr_core.api.node import Node
from dropr_core.contracts.storage import Selection
from dropr_core.model import envelope
from dropr_core.model.message import State
from dropr_core.testing.shared_memory import World


@pytest.fixture
def app_of(tmp_path):
    """Makes the application for a node's YAML file, in this process; its pools are closed with the test."""
    with contextlib.ExitStack() as stack:

        def make(file, **more):
            app = celery_tasks.make(f"dropr://{file}", tmp_path, **more)
            stack.callback(app.close)
            stack.callback(app.backend.close)
            stack.callback(app.pool.force_close_all)
            return app

        yield make


def test_a_result_is_there_for_whoever_asks(app_of, node_file):
    """Another process with the same node sees it; a success is changed by nothing that comes later."""
    path = node_file()
    one, other = app_of(path), app_of(path)
    assert other.AsyncResult("a").state == states.PENDING
    one.backend.mark_as_started("a", pid=7)
    assert other.AsyncResult("a").state == states.STARTED
    one.backend.mark_as_done("a", {"x": 1})
    one.backend.mark_as_failure("a", KeyError("late"))
    assert other.AsyncResult("a").get(timeout=30) == {"x": 1}
    other.AsyncResult("a").forget()
    assert one.AsyncResult("a").state == states.PENDING


def test_a_failure_comes_with_its_traceback(app_of, node_file):
    """The exception is raised again, and says where it came from."""
    app = app_of(node_file())
    app.backend.mark_as_failure("a", KeyError("no"), traceback="Traceback: line 7")
    result = app.AsyncResult("a")
    with pytest.raises(KeyError, match="no"):
        result.get(timeout=30)
    assert (result.state, result.traceback) == (states.FAILURE, "Traceback: line 7")


def test_a_large_result_is_as_good_as_a_small_one(app_of, node_file):
    """There is no limit of 64 KiB: it is no part of a receipt."""
    app = app_of(node_file())
    app.backend.mark_as_done("a", "x" * 300_000)
    assert app.AsyncResult("a").get(timeout=30) == "x" * 300_000


def test_waiting_ends_with_the_result_or_the_timeout(app_of, node_file):
    """Who waits sleeps, and is woken when it comes."""
    app = app_of(node_file())
    with pytest.raises(TimeoutError):
        app.AsyncResult("a").get(timeout=0.01)
    thread = threading.Timer(0.05, app.backend.mark_as_done, ("a", 1))
    thread.start()
    assert app.AsyncResult("a").get(timeout=30) == 1
    thread.join()


def test_who_waits_does_not_poll(app_of, node_file, monkeypatch):
    """Celery asks a store twice a second for each that waits; here nothing is asked until something comes."""
    app = app_of(node_file())
    asked = []
    take_in = app.backend.post.take_in
    monkeypatch.setattr(app.backend.post, "take_in", lambda: asked.append(1) or take_in())
    with pytest.raises(TimeoutError):
        app.AsyncResult("a").get(timeout=1.6, interval=0.01)
    assert len(asked) <= 3


def test_a_group_is_waited_for_as_one(app_of, node_file):
    """Results come in any order, and each is given once."""
    app = app_of(node_file())
    group = app.GroupResult("g", [app.AsyncResult(name) for name in "abc"])
    group.save()
    for number, name in enumerate("cab"):
        threading.Timer(0.02 * number, app.backend.mark_as_done, (name, name)).start()
    assert app.GroupResult.restore("g").get(timeout=30) == ["a", "b", "c"]


def test_a_result_for_another_node_travels_there_as_a_message(app_of, node_file):
    """It waits in the outbox while the road is down; where it arrives it is taken in by who asks, in order."""
    peer = {"url": "http://127.0.0.1:9", "key": "0123456789abcdef0123"}
    far, home = node_file("warehouse", peers={"shop": peer}), node_file("shop")
    worker, asker = app_of(far), app_of(home)
    request = Context(id="a", dropr_home=["shop"])
    worker.backend.store_result("a", {}, states.STARTED, request=request)
    worker.backend.mark_as_done("a", "done", request=request)
    assert worker.AsyncResult("a").state == states.PENDING  # it is not kept where nobody asks for it
    with Node.open(far) as node, Node.open(home) as other:
        waiting = list(node.outbox.all(Selection()))
        assert [(one.peer, one.channel, one.state) for one in waiting] == [("shop", CHANNEL, State.QUEUED)] * 2
        for one in waiting:  # as its daemon would
            carry(node, other, one)
    assert asker.AsyncResult("a").get(timeout=30) == "done"


def carry(node, other, delivery):
    """One message from an outbox to another node's inbox."""
    other.put(envelope.body_of(node.outbox.envelope(delivery.id)), channel=delivery.channel, key="a")


def test_a_home_that_nobody_knows_is_said_and_the_result_kept(app_of, node_file, caplog):
    """A task may have come over a node between: what became of it is at least known here."""
    app = app_of(node_file())
    app.backend.mark_as_done("a", 1, request=Context(id="a", dropr_home=["elsewhere"]))
    assert "elsewhere" in caplog.text
    assert app.AsyncResult("a").get(timeout=30) == 1


def test_the_failure_of_an_unknown_task_goes_home_too(app_of, node_file):
    """Celery tells a backend only its id; where it came from is known since it was delivered."""
    peer = {"url": "http://127.0.0.1:9", "key": "0123456789abcdef0123"}
    path = node_file("warehouse", peers={"shop": peer})
    app = app_of(path)
    app.backend._shared.remember("a", ["shop"])
    app.backend.mark_as_failure("a", KeyError("never"), request=Bunch(name="never", errbacks=None, chord=None))
    with Node.open(path) as node:
        assert [one.peer for one in node.outbox.all(Selection())] == ["shop"]


def test_what_is_no_result_is_buried(app_of, node_file):
    """Whoever puts something else on the channel stops nobody."""
    path = node_file()
    app = app_of(path)
    app.backend.mark_as_done("a", 1)
    with Node.open(path) as node:
        node.put(b"hello", channel=CHANNEL)
        assert app.AsyncResult("a").get(timeout=30) == 1
        assert [one.state for one in node.inbox.all(Selection())] == [State.BURIED]


def test_results_are_forgotten_after_their_time(app_of, node_file):
    """`result_expires` is kept, and `celery.backend_cleanup` makes room."""
    app = app_of(node_file(), result_expires=0.001)
    app.backend.mark_as_done("a", 1)
    eventually(lambda: app.AsyncResult("a").state == states.PENDING)
    app.backend.cleanup()
    table = app.backend.post.table
    assert table._do(lambda connection: connection.execute("SELECT count(*) FROM entries").fetchone()) == (0,)


@pytest.fixture(params=["a file", "shared by machines"])
def table(request, tmp_path):
    """Both places in which results may stand."""
    made = Table(tmp_path / "t.db") if request.param == "a file" else SharedTable(World().machine())
    with contextlib.closing(made):
        yield made


def test_the_table_keeps_what_it_was_given(table):
    """The last word counts, a success is the last one, and what is past its time is as if it had never been."""
    table.put([Entry("a", b"1", False, None), Entry("b", b"1", True, None), Entry("old", b"1", False, time.time() - 1)])
    table.put([Entry("a", b"2", False, None), Entry("b", b"2", False, None)])
    assert table.get(["a", "b", "c", "old"]) == {"a": b"2", "b": b"1"}
    table.delete("b")
    table.delete("never")
    table.clean()
    assert table.get(["a", "b"]) == {"a": b"2"}


def test_machines_of_one_node_have_one_table():
    """A result that one of them has taken in is there for the other."""
    world = World()
    one, other = SharedTable(world.machine()), SharedTable(world.machine())
    one.put([Entry("a", b"1", True, time.time() + 60), Entry("old", b"1", True, time.time() - 1)])
    assert other.get(["a"]) == {"a": b"1"}
    other.clean()
    assert [name.rpartition("/")[2] for name in world.documents] == ["a"]


def test_the_parts_of_a_chord_are_given_once(table):
    """To whoever brings the last one, in their order, whatever is brought twice; the size may be known late."""
    assert table.add_part("c", "2", b"two", None) is None
    assert table.add_part("c", "1", b"one", None) is None
    table.expect("c", 3, None)
    assert table.add_part("c", "2", b"two", None) is None
    assert table.add_part("c", "3", b"three", None) == [b"one", b"two", b"three"]
    assert table.add_part("c", "3", b"three", None) is None


def test_each_task_of_a_group_within_a_chord_counts(app_of, node_file):
    """They have one place in the header together; the body is sent with the last of them, and once."""
    path = node_file()
    app = app_of(path)
    app.backend.set_chord_size("g", 3)
    for name, index in (("a", 0), ("b", 1), ("c", 1), ("c", 1)):
        request = Context(id=name, group="g", group_index=index, chord=dict(app.tasks["total"].s()))
        app.backend.on_chord_part_return(request, states.SUCCESS, 1)
    with Node.open(path) as node:
        (body,) = node.receive("celery", wait=0)
        assert b"[[1, 1, 1]]" in body.body


def test_a_table_is_used_over_a_fork(tmp_path):
    """By parent and child at once, as in a worker whose children store results."""
    table = Table(tmp_path / "t.db")
    table.put([Entry("before", b"1", True, None)])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for number in range(20):
                table.put([Entry(f"child {number}", b"1", True, None)])
            status = 0
        finally:
            os._exit(status)
    for number in range(20):
        table.put([Entry(f"parent {number}", b"1", True, None)])
    assert os.waitpid(child, 0)[1] == 0
    keys = ["before", *(f"{who} {number}" for who in ("child", "parent") for number in range(20))]
    assert sorted(table.get(keys)) == sorted(keys)
    table.close()


def test_a_backend_needs_a_node(tmp_path, monkeypatch):
    """`dropr://` means the broker's; where that is another one, the message says what to write."""
    monkeypatch.delenv("DROPR_CONFIG", raising=False)
    app = celery_tasks.make("memory://", tmp_path)
    with pytest.raises(ImproperlyConfigured, match="names no node"):
        app.backend  # noqa: B018
