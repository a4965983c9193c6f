"""A large body that cannot be read at its sender: its own message waits, or dies, and nothing else."""

import os

import pytest
from support.lanes import LOG, SHOP, THERE, Node, Sender, ident, live

from dropr_core.bodies.store import BodyFiles
from dropr_core.system.clock import FakeClock


@pytest.fixture
def pair(tmp_path):
    clock = FakeClock()
    there = Node(THERE, SHOP, clock, bodies=BodyFiles(tmp_path / "there", 0))
    return Sender(clock, there, bodies=BodyFiles(tmp_path / "here", 0)), there


def refuse(number):
    """What opening or reading a file says."""

    def fail(*_args, **_more):
        raise OSError(number, os.strerror(number))

    return fail


def spoil(path):
    """It cannot be opened, whoever asks (root may read what is forbidden to others)."""
    path.rename(path.with_name("kept"))
    path.symlink_to(path.name)


def mend(path):
    path.unlink()
    path.with_name("kept").rename(path)


def test_a_body_that_cannot_be_opened_keeps_its_own_lane_waiting_and_no_other(pair):
    """Small messages, and large ones of another channel, arrive at once; the reason is reported."""
    sender, there = pair
    bad = sender.send_large(1, "orders", b"a" * 100_000)
    spoil(bad)
    sender.send_large(2, "orders", b"b" * 100_000)
    sender.send_large(3, "news", b"c" * 100_000)
    sender.send(4)
    live(sender, 5.0)
    assert sorted(there.ids) == [ident(3), ident(4)]
    (waits,) = sender.pusher.uploads.unreadable
    assert waits["id"].replace("-", "") == ident(1).hex()
    assert "cannot be read" in waits["reason"]
    assert sender.pusher.link.down_reason is None
    mend(bad)
    live(sender, 10.0)
    assert sorted(there.ids) == [ident(number) for number in (1, 2, 3, 4)]
    assert sender.pusher.uploads.unreadable == []


def test_a_body_that_stays_unreadable_ends_as_dead_with_its_reason_and_the_next_goes_on(pair, monkeypatch):
    """After about a minute the message is given up: what is behind it in its lane arrives."""
    sender, there = pair
    spoil(sender.send_large(1, "orders", b"a" * 100_000))
    sender.send_large(2, "orders", b"b" * 100_000)
    said = []
    monkeypatch.setattr(LOG, "error", lambda text, *more, **_extra: said.append(text % more))
    live(sender, 50.0)
    assert sender.state(1) == "queued"
    live(sender, 30.0)
    assert sender.state(1) == "dead"
    (delivery,) = sender.outbox.status(ident(1))
    assert "cannot be read" in delivery.reason
    assert there.ids == [ident(2)]
    assert ["waits, and what is behind it" in line for line in said] == [True, False]


@pytest.mark.parametrize("number", [5, 13])
def test_a_piece_that_cannot_be_read_is_tried_again_and_the_message_arrives(pair, monkeypatch, number):
    """EIO in the middle of a body is a matter of this body alone, and it may pass."""
    sender, there = pair
    sender.send_large(1, "orders", b"a" * 3_000_000)
    sender.send(2)
    with monkeypatch.context() as patch:
        patch.setattr("dropr_core.bodies.files.os.pread", refuse(number))
        live(sender, 5.0)
        assert there.ids == [ident(2)]
    live(sender, 20.0)
    assert sorted(there.ids) == [ident(1), ident(2)]


def test_a_process_without_handles_does_not_blame_a_message(pair, monkeypatch):
    """No descriptor is left, for however long: no message dies of it, and all arrive when there is one."""
    sender, there = pair
    sender.send_large(1, "orders", b"a" * 100_000)
    with monkeypatch.context() as patch:
        patch.setattr(sender.bodies, "load", refuse(24))
        live(sender, 300.0)
        assert sender.state(1) == "queued"
        assert sender.pusher.uploads.unreadable == []
    live(sender, 3.0)
    assert there.ids == [ident(1)]
