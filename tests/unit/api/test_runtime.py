"""The runtime: opened whole or not at all, used neither after closing nor across a fork, closed once."""

import os
import stat
from pathlib import Path

import pytest

from dropr_core.api.data_directory import prepare
from dropr_core.api.node import Node
from dropr_core.api.runtime import Runtime
from dropr_core.config.node import from_mapping
from dropr_core.errors import Closed, StoreCorrupt, StoreReadOnly, WriteFailed
from dropr_core.plugin.observers import Observers

KEY = "k" * 40


def config_in(directory: Path, **more: object):
    """A node with one peer, over the memory storage."""
    mapping = {"node": "shop", "data": str(directory / "data"), "storage": "memory",
               "peers": {"w": {"url": "http://127.0.0.1:9", "key": KEY}}, **more}  # fmt: skip
    return from_mapping(mapping, directory)


@pytest.fixture
def runtime(tmp_path):
    with Runtime.open(config_in(tmp_path, channels={"orders": {"to": "w", "attempts": 3}})) as opened:
        yield opened


def test_everything_says_closed_after_closing_and_closing_twice_is_nothing(runtime):
    """Both halves, and the verbs above them, raise Closed once the runtime is closed."""
    node = Node(runtime)
    runtime.close()
    runtime.close()
    for use in (
        lambda: runtime.outbox,
        lambda: runtime.inbox,
        runtime.check,
        lambda: node.send(b"x", to="w"),
        lambda: node.put(b"x"),
        lambda: node.consumer("jobs"),
        lambda: node.status("0" * 32),
    ):
        with pytest.raises(Closed, match="node shop was closed"):
            use()


def test_a_child_process_is_told_to_open_its_own(runtime, monkeypatch):
    """What a parent opened is refused in the child, with what to do."""
    mine = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: mine + 1)
    with pytest.raises(Closed, match="opened before a fork; open it again in the child"):
        Node(runtime).send(b"x", to="w")


def test_a_storage_that_does_not_open_leaves_no_observer_open(tmp_path, monkeypatch):
    """The observers that were opened first are closed again when the storage fails."""
    closed = []

    def close(observers):
        closed.append(observers)

    def fail(_context):
        raise WriteFailed("no store today")

    monkeypatch.setattr(Observers, "close", close)
    with pytest.raises(WriteFailed, match="no store today"):
        Runtime.open(config_in(tmp_path), make_storage=fail)
    assert len(closed) == 1


def test_rules_are_those_of_the_channel_or_the_defaults(runtime):
    """A channel of the configuration has its own number of attempts, any other the default."""
    assert runtime.rules("orders").attempts == 3
    assert runtime.rules("elsewhere").attempts == 10
    assert runtime.attempts == {"orders": 3}


def test_a_nudge_leaves_word_for_the_daemon_and_wakes_it(runtime):
    """Each nudged peer has a file in the run directory, and who listens for control is notified."""
    with runtime.notifier.subscribe("control") as subscription:
        subscription.prepare()
        runtime.retry_now("w")
        runtime.retry_now()
        runtime.announce()
        assert subscription.wait(0)
    assert {path.name for path in (runtime.run_directory / "nudge").iterdir()} == {b"w".hex(), "all", "announce"}


def test_the_data_directory_is_its_owners_alone_and_keeps_its_id(tmp_path):
    """It is made with mode 0700, and the id of the node is the same at every opening."""
    data = tmp_path / "deep" / "data"
    first = prepare(data, read_only=False)
    assert len(first) == 16
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert prepare(data, read_only=False) == first == prepare(data, read_only=True)


def test_looking_makes_no_data_directory(tmp_path):
    """Opened to look, what is not there is said and not made."""
    with pytest.raises(StoreReadOnly, match="must exist"):
        prepare(tmp_path / "data", read_only=True)
    assert not (tmp_path / "data").exists()


def test_a_damaged_id_is_named(tmp_path):
    """An id that is no id is damage of the store, with what to do."""
    data = tmp_path / "data"
    prepare(data, read_only=False)
    (data / "node.id").write_text("not hexadecimal")
    with pytest.raises(StoreCorrupt, match="restore it, or remove it"):
        prepare(data, read_only=False)
