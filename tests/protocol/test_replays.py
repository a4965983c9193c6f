"""What a request that was recorded does when it is replayed within the hour, at a server that never saw it: nothing.

One fence is the window of the server that saw the request; these tests take another server of the same node, which
shares stores and secret, as after a restart. Decision 0057 says for each verb why.
"""

import copy

import pytest
from support.lanes import Flight, ident, verb

from dropr_core.protocol.conversations import LIFE
from dropr_core.protocol.frames import read_head


class Recorder:
    """Somebody on the road who writes down each request."""

    def __init__(self, node):
        self.wires, self.frames = node.wires, []
        asked = node.wires.ask

        def ask(request, *, idle):
            self.frames.append(bytes(request))
            return asked(request, idle=idle)

        node.wires.ask = ask

    def replay(self, server, clock, verbs=None):
        """Each request again, to this server; (verb, refusal or ok)."""
        said = []
        for frame in self.frames:
            flight = Flight(frame, server, clock)
            name = verb(flight)
            if verbs is None or name in verbs:
                flight.arrive()
                answer = flight.answer
                said.append((name, read_head(answer, 1 << 30).header.status if isinstance(answer, bytes) else "waits"))
        return said


def picture(node):
    """All that a store says, of both halves."""
    outbox = [(one.id, str(one.state), one.sequence, one.possible_duplicate) for _, one in scan(node.outbox)]
    inbox = [(task.job.id, task.job.possible_duplicate) for _, task in sorted(node.inbox._data.items.items())]
    return outbox, node.outbox.lanes(), node.outbox.peers(), node.outbox.store_id, inbox, dict(node.inbox._data.heads)


def scan(outbox):
    from dropr_core.contracts.storage import Selection

    return outbox.scan(Selection(), limit=1000)


def test_fault_89_every_verb_of_a_sender_replayed_at_another_server_changes_nothing(sender, server, clock):
    """Hellos, pushes, probes and polls of a whole conversation, again: nothing enters twice, nothing is settled, no
    event, and the sender goes on without a greeting.
    """
    server.several()
    recorder = Recorder(sender)
    for number in range(1, 6):
        sender.send(number, receipt=number % 2 == 0)
        sender.flow(3)
        server.consume(1)
        sender.flow(3)
    server.restart()
    before, told = copy.deepcopy((picture(server), picture(sender))), len(server.events)
    said = recorder.replay(server, clock)
    assert {name for name, _ in said} >= {"hello", "push", "receipts"}
    assert {word for _, word in said} <= {"ok", "waits"}
    assert (picture(server), picture(sender)) == before
    assert len(server.events) == told
    greeted = sum(read_head(frame, 1 << 30).header.verb == "hello" for frame in recorder.frames)
    sender.send(6)
    sender.flow(5)
    assert server.ids == [ident(number) for number in range(1, 7)]
    assert sum(read_head(frame, 1 << 30).header.verb == "hello" for frame in recorder.frames) == greeted


def test_fault_89_every_fetch_replayed_at_another_server_changes_nothing(fetcher, clock):
    """Old heads, and old receipts, of a node that fetches: they do not make its sender send anything again."""
    node, sender = fetcher
    sender.several()
    recorder = Recorder(node)
    for number in range(1, 6):
        sender.send(number, receipt=True)
        node.flow(4)
        node.consume(1)
        node.flow(4)
    sender.send(6, receipt=True)
    node.flow(4)
    sender.restart()
    before, told = copy.deepcopy(picture(sender)), len(sender.events)
    said = recorder.replay(sender, clock)
    assert {word for _, word in said} <= {"ok", "waits", "new_session"}
    assert picture(sender) == before
    assert len(sender.events) == told
    assert sender.told("peer_reset") == 0
    node.flow(6)
    sender.send(7, receipt=True)
    node.flow(6)
    assert node.ids == [ident(number) for number in range(1, 8)]
    assert not any(job.possible_duplicate for _, job in node.entered)


@pytest.mark.parametrize("seconds", [LIFE + 1, 24 * LIFE])
def test_fault_89_after_an_hour_a_recorded_request_is_refused(sender, server, clock, seconds):
    """What was recorded yesterday is refused today, though its conversation was never ended."""
    server.several()
    recorder = Recorder(sender)
    sender.send(1)
    sender.flow(5)
    clock.advance(seconds)
    server.restart()
    assert {word for name, word in recorder.replay(server, clock) if name != "hello"} == {"new_session"}
    sender.send(2)
    sender.flow(5)
    assert server.ids == [ident(1), ident(2)]
    assert sender.told("peer_down") == 0


def test_a_store_restored_below_a_running_fetcher_is_believed_after_a_hello(fetcher, clock):
    """In the middle of a conversation nobody is believed to have less than before; the fetcher greets, and gets again
    what is kept, flagged.
    """
    node, sender = fetcher
    sender.several()
    sender.send(1, receipt=True)
    node.flow()
    backup = copy.deepcopy(node.data)
    sender.send(2, receipt=True)
    node.flow()
    node.restore(backup)
    node.puller._inbox = node.inbox
    clock.advance(61)
    sender.send(3, receipt=True)
    for _ in range(4):
        node.flow()
        clock.advance(61)
    assert [job.id for _, job in node.lives[-1]] == [ident(2), ident(3)]
    assert sender.told("peer_reset") == 1
    assert sender.told("peer_down") == 0
