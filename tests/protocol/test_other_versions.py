"""A peer of another version: what both can do goes on, what they cannot waits, and both are told whose turn it is."""

import struct
import zlib

import msgspec
import pytest
from support.lanes import KEY, SHOP, THERE, ident

from dropr_core.contracts.transport import Caller
from dropr_core.errors import BadEnvelope, Refused
from dropr_core.model import envelope
from dropr_core.model.names import Lane
from dropr_core.protocol import frames, greeting
from dropr_core.protocol import messages as wire


def as_newer(data, magic=0xD2, flags=0):
    """The same envelope as a newer dropr would have made it: sound, and of another version or with another flag."""
    fixed = bytes([magic, data[1] | flags]) + data[2:14]
    return fixed + struct.pack(">I", zlib.crc32(data[18:], zlib.crc32(fixed))) + data[18:]


def make_newer(sender, number, **how):
    """Let the message with this number be one of a newer dropr."""
    record = sender.outbox._data.logs[Lane(THERE, "orders", 5)].items[number]
    record.message = record.message._replace(envelope=as_newer(record.message.envelope, **how))


# ── the greeting ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("theirs", "ours", "wanted"),
    [((1, 0), (1, 1), 1), ((1, 1), (1, 3), 1), ((1, 4), (1, 3), 3), ((2, 3), (1, 2), 2), ((1, 9), (2, 3), 3)],
)
def test_the_newest_that_both_speak(monkeypatch, theirs, ours, wanted):
    """Whoever of the two is newer: they meet at the newest version that both know; 0.1 says one version only."""
    monkeypatch.setattr(greeting, "OLDEST", ours[0])
    monkeypatch.setattr(greeting, "NEWEST", ours[1])
    assert greeting.agree("ware", "shop", wire.Hello(theirs[0], b"n" * 16, theirs[1])) == wanted


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        ((2, 3), (1, 1), "shop speaks versions 2 to 3 of the protocol, ware version 1: upgrade dropr on ware;"),
        ((1, 1), (2, 3), "shop speaks version 1 of the protocol, ware versions 2 to 3: upgrade dropr on shop;"),
        ((1, 0), (3, 3), "shop speaks version 1 of the protocol, ware version 3: upgrade dropr on shop;"),
    ],
)
def test_no_version_in_common_says_who_is_behind(monkeypatch, theirs, ours, words):
    """The refusal names both nodes, what each speaks, and the one to upgrade."""
    monkeypatch.setattr(greeting, "OLDEST", ours[0])
    monkeypatch.setattr(greeting, "NEWEST", ours[1])
    with pytest.raises(Refused, match=words) as caught:
        greeting.agree("ware", "shop", wire.Hello(theirs[0], b"n" * 16, theirs[1]))
    assert caught.value.code == "version"


def test_a_greeting_grows_only_at_its_end():
    """What 0.1 sends is read, and what this dropr sends begins with what 0.1 reads, whatever a later one adds."""
    assert wire.decode(msgspec.msgpack.encode([1, b"n" * 16]), wire.Hello) == wire.Hello(1, b"n" * 16, 0)
    assert msgspec.msgpack.decode(wire.encode(greeting.hello(b"n" * 16)))[:2] == [1, b"n" * 16]
    later = msgspec.msgpack.encode([1, b"n" * 16, 4, "0.9", {"more": True}])
    assert wire.decode(later, wire.Hello) == wire.Hello(1, b"n" * 16, 4)


def test_a_sender_that_is_too_new_waits_and_goes_on_after_the_upgrade(sender, server, monkeypatch):
    """Its messages stay, both sides are told once who is behind, and once that it is over."""
    sender.send(1)
    real = greeting.hello
    monkeypatch.setattr(greeting, "hello", lambda node_id: msgspec.structs.replace(real(node_id), version=2, newest=3))
    sender.flow(20, 30)
    assert server.ids == []
    assert sender.state(1) == "queued"
    words = "shop speaks versions 2 to 3 of the protocol, there version 1: upgrade dropr on there"
    assert words in sender.pusher.link.down_reason
    told = [details for name, details in server.events if name == "other_version"]
    assert len(told) == 1
    assert told[0]["reason"].startswith(words)
    monkeypatch.setattr(greeting, "hello", real)  # the other way round: this is the downgrade of the sender
    sender.flow(20, 30)
    assert server.ids == [ident(1)]
    assert [details["reason"] for name, details in server.events if name == "other_version"][1:] == [""]


def test_an_answer_in_a_version_that_nobody_offered_is_no_conversation(sender, server, monkeypatch):
    """A peer that chooses a version of its own is told to be ahead; nothing is sent to it."""
    sender.send(1)
    monkeypatch.setattr("dropr_core.protocol.endpoint.agree", lambda *_: 7)
    sender.flow(20, 30)
    assert server.ids == []
    assert sender.state(1) == "queued"
    assert "there speaks version 7 of the protocol, shop version 1: upgrade dropr on shop" in (
        sender.pusher.link.down_reason
    )


# ── frames and verbs ─────────────────────────────────────────────────────────────────────────────


def request(verb, body=b"\x90"):
    header = frames.FrameHeader(SHOP, THERE, frames.request_id(), verb, b"", b"", 1)
    return frames.seal(frames.REQUEST, header, body, KEY)[0]


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [(4, 2, "a frame of version 2, which this dropr does not know: upgrade dropr here"),
     (4, 0, "a frame of version 0, which this dropr does not know: upgrade dropr where it came from"),
     (5, 7, "a frame of kind 7, which this dropr does not know: upgrade dropr here")],
)  # fmt: skip
def test_a_frame_of_another_version_or_kind_is_refused_by_that_word(server, at, value, words):
    """It is not called damaged: the refusal says `version`, and whose turn it is."""
    data = bytearray(request(wire.HELLO))
    data[at] = value
    with pytest.raises(Refused, match=words) as caught:
        server.endpoint.open(bytes(data), Caller("test"))
    assert caught.value.code == "version"


def test_a_peer_that_answers_in_another_frame_loses_no_message(sender, server):
    """An answer in a frame of version 2 settles nothing and says what it is."""
    sender.send(1)
    (flight,) = sender.turn()
    flight.arrive()
    answer = bytearray(flight.answer)
    answer[4] = 2
    flight.come_back(bytes(answer))
    sender.turn()
    assert sender.state(1) == "queued"
    assert "frame of version 2" in sender.pusher.link.down_reason


def test_an_unknown_verb_gets_a_signed_refusal(server):
    """`unsupported`, with the verb: whoever asked goes on without, or says that this node must be upgraded."""
    word = server.endpoint.answer(server.endpoint.open(request(wire.HELLO, wire.encode(greeting.hello(b"i" * 16))),
                                                       Caller("test")))  # fmt: skip
    head = frames.read_head(word, 1 << 20)
    welcome = wire.decode(frames.open_body(head, word)[0], wire.Welcome)
    header = frames.FrameHeader(SHOP, THERE, frames.request_id(), "teleport", b"", welcome.session, 2)
    frame = frames.seal(frames.REQUEST, header, b"\x90", KEY)[0]
    answer = server.endpoint.answer(server.endpoint.open(frame, Caller("test")))
    head = frames.read_head(answer, 1 << 20)
    assert frames.verify(head, (KEY,)) is not None
    assert head.header.status == "unsupported"
    assert b"teleport" in bytes(frames.open_body(head, answer)[0])


# ── envelopes ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", [{"magic": 0xD2}, {"flags": 0x40}])
def test_a_message_that_only_a_newer_dropr_reads_waits(sender, server, how, monkeypatch):
    """What stands before it enters, it and what stands behind it wait at the sender; after the upgrade all is there."""
    for number in (1, 2, 3, 4):
        sender.send(number)
    make_newer(sender, 3, **how)
    sender.flow(60, 3)
    assert server.ids == [ident(1), ident(2)]
    assert [sender.state(number) for number in (3, 4)] == ["queued", "queued"]
    assert server.told("other_version") == 1
    _, details = next(event for event in server.events if event[0] == "other_version")
    assert details["channel"] == "orders"
    assert "made by a newer dropr" in details["reason"]
    record = sender.outbox._data.logs[Lane(THERE, "orders", 5)].items[3]
    old = record.message.envelope
    known = bytes([0xD1, old[1] & 1]) + old[2:14]
    record.message = record.message._replace(
        envelope=known + struct.pack(">I", zlib.crc32(old[18:], zlib.crc32(known))) + old[18:]
    )  # the receiver reads it now
    sender.flow(60, 3)
    assert server.ids == [ident(number) for number in (1, 2, 3, 4)]
    assert [details["reason"] for name, details in server.events if name == "other_version"][1:] == [""]


def test_a_message_that_is_only_damaged_does_not_wait(sender, server):
    """A first byte that turned into that of a later version, with the checksum of before, is damage: it fails."""
    for number in (1, 2):
        sender.send(number)
    record = sender.outbox._data.logs[Lane(THERE, "orders", 5)].items[1]
    record.message = record.message._replace(envelope=b"\xd3" + record.message.envelope[1:])
    sender.flow(10)
    assert server.ids == [ident(2)]
    assert sender.state(1) == "failed"


def test_one_that_fetches_takes_what_it_can_read(fetcher):
    """The other direction: what stands before such a message is fetched, and the message stays at its sender."""
    receiver, sender = fetcher
    for number in (1, 2, 3):
        sender.send(number)
    make_newer(sender, 3)
    receiver.flow(40)
    assert receiver.ids == [ident(1), ident(2)]
    assert sender.state(3) == "queued"


def test_an_envelope_of_a_later_version_is_told_from_damage():
    """`FromNewer` for what is sound, and else what it was before."""
    from dropr_core.model.message import Message

    data = envelope.encode(Message(id=b"i" * 16, sender="shop"), b"body")
    with pytest.raises(envelope.FromNewer, match="version 2"):
        envelope.check(as_newer(data))
    with pytest.raises(envelope.FromNewer, match="flags 0x40"):
        envelope.check(as_newer(data, 0xD1, 0x40))
    for damaged in (b"\xd2" + data[1:], b"\xe1" + data[1:], as_newer(data)[:-1]):
        with pytest.raises(BadEnvelope) as caught:
            envelope.check(damaged)
        assert not isinstance(caught.value, envelope.FromNewer)
