"""Speeds: the difference of two pictures."""

import msgspec
from support.one_node import Peer, open_node, pass_time

from dropr_core.monitor.gathering import take_snapshot
from dropr_core.monitor.rates import rates


def test_speeds_are_what_happened_in_the_time_between(tmp_path):
    """Sent, shipped, come in and processed, each a second of node time."""
    with open_node(tmp_path) as node:
        peer = Peer(node)
        peer.push(b"first")
        node.send(b"first", to="berlin", channel="orders")
        before = take_snapshot(node.runtime)
        for _ in range(4):
            node.send(b"x", to="berlin", channel="orders")
        (lane,) = node.outbox.lanes()
        node.outbox.settle(lane.lane, node.outbox.take(lane.lane, 2, 10_000).upto)
        peer.push(*[b"x"] * 6)
        assert sum(1 for _ in node.receive("jobs", limit=3, wait=0)) == 3
        pass_time(node, 1000)
        after = take_snapshot(node.runtime)
    found = rates(before, after)
    assert found.seconds >= 1000
    speed, jobs = found.peers["berlin"], found.channels["jobs"]
    assert [round(1000 * n, 1) for n in (speed.sent, speed.shipped, speed.received, speed.backlog)] == [4, 2, 6, 2]
    assert found.flows["berlin", "orders"].shipped == speed.shipped
    assert [round(1000 * n, 1) for n in (jobs.sent, jobs.shipped, jobs.backlog)] == [6, 3, 3]
    assert round(1000 * found.total.received, 1) == 6


def test_a_counter_that_goes_back_is_no_speed(tmp_path):
    """A redrive, a wipe or another store makes a speed of 0, never a negative one."""
    with open_node(tmp_path) as node:
        node.send(b"x", to="berlin", channel="orders")
        before = take_snapshot(node.runtime)
    (berlin, rome) = before.peers
    after = msgspec.structs.replace(
        before, at=before.at + 10, peers=(msgspec.structs.replace(berlin, sent=0, waiting=0), rome)
    )
    speed = rates(before, after).peers["berlin"]
    assert (speed.sent, speed.backlog) == (0.0, -0.1)


def test_no_time_is_no_speed(tmp_path):
    """Two pictures of one moment, or in the wrong order, divide by nothing."""
    with open_node(tmp_path) as node:
        seen = take_snapshot(node.runtime)
    assert rates(seen, seen).peers == {}
    assert rates(msgspec.structs.replace(seen, at=seen.at + 5), seen).seconds == 0.0
