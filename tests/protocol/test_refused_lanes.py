"""What is refused leaves nothing behind, in either direction; what is no channel is none at every door."""

import copy

import pytest
from support.lanes import KEY, SHOP, THERE, Fetcher, Node, Sender, ident, verb

from dropr_core.config.node import from_mapping
from dropr_core.contracts.storage import NewMessage
from dropr_core.delivery import puller
from dropr_core.errors import BadName, ConfigError
from dropr_core.model import envelope
from dropr_core.model.limits import MAX_LANES
from dropr_core.model.message import Message
from dropr_core.model.names import check_channel, check_pattern, check_stored_channel
from dropr_core.protocol import batches, endpoint, reconcile
from dropr_core.protocol.access import Access
from dropr_core.system.clock import FakeClock


def pair(*patterns):
    """A sender, and a receiver at which it may write to these channels."""
    clock = FakeClock()
    there = Node(THERE, SHOP, clock)
    there.access[SHOP] = Access((KEY,), patterns)
    return Sender(clock, there), there


def fetching(allows):
    """A node that fetches and takes only what ``allows`` says, and the one that it fetches from."""
    office = Sender(FakeClock(), None)
    fetcher = Fetcher(office.clock, office)
    fetcher.puller._allows = allows
    return fetcher, office


def test_channels_that_a_peer_may_not_write_to_leave_no_trace():
    """Three hundred such names are refused with a code each, and the receiver's store is as empty as before."""
    sender, there = pair("news")
    for number in range(1, 301):
        sender.send(number, channel=f"secret{number}")
    sender.send(301, channel="news")
    sender.flow(8)
    assert {sender.state(number) for number in range(1, 301)} == {"failed"}
    assert "not_allowed" in sender.outbox.status(ident(7))[0].reason
    assert there.ids == [ident(301)]
    assert [lane.channel for lane in there.inbox.heads(SHOP)] == ["news"]
    assert set(there.inbox.counts()) <= {"news"}


def test_a_lane_that_was_refused_goes_on_when_it_is_allowed():
    """What is sent after the permission arrives, once; what was refused before stays failed."""
    sender, there = pair("news")
    for number in (1, 2):
        sender.send(number, channel="orders")
        sender.flow(4)
    there.access[SHOP] = Access((KEY,), None)
    for number in (3, 4):
        sender.send(number, channel="orders", receipt=True)
        sender.flow(6)
    assert there.ids == [ident(3), ident(4)]
    assert [sender.state(number) for number in (1, 2, 3, 4)] == ["failed", "failed", "accepted", "accepted"]


def test_a_lane_that_is_refused_for_a_while_loses_nothing():
    """Allowed, refused, allowed: the head of before is older than the sender's, and everything new arrives once."""
    sender, there = pair("orders")
    sender.send(1)
    sender.flow(4)
    there.access[SHOP] = Access((KEY,), ("news",))
    sender.send(2)
    sender.flow(4)
    there.access[SHOP] = Access((KEY,), ("orders",))
    sender.send(3)
    sender.flow(6)
    assert there.ids == [ident(1), ident(3)]
    assert sender.state(2) == "failed"


def test_a_node_that_fetches_keeps_nothing_of_what_it_refuses_and_asks_for_it_once():
    """Its store has no heads of such lanes, and they are not brought again and again."""
    fetcher, office = fetching(lambda channel: channel == "news")
    for number in range(1, 51):
        office.send(number, channel=f"secret{number}")
    office.send(51, channel="news")
    before = 0
    for _ in range(3):
        fetcher.flow(8)
        before, now = len(fetcher.wires.flights), before
    assert fetcher.ids == [ident(51)]
    assert [lane.channel for lane in fetcher.inbox.heads(SHOP)] == ["news"]
    assert before == now, "no request after the refusals but the long poll that waits"
    assert not office.outbox.lanes(THERE)


def test_what_a_fetching_node_remembers_of_refusals_is_bounded(monkeypatch):
    """Names without end cost no memory without end."""
    monkeypatch.setattr(puller, "MAX_LANES", 10)
    fetcher, office = fetching(lambda channel: channel == "news")
    for number in range(1, 41):
        office.send(number, channel=f"secret{number}")
        fetcher.flow(3)
    assert len(fetcher.puller._refused) == 10


def test_a_node_that_fetches_says_its_heads_in_parts(monkeypatch):
    """With more lanes than one request may name everything arrives once, and later messages of every lane as well."""
    for module in (puller, batches, endpoint):
        monkeypatch.setattr(module, "MAX_LANES", 5)
    fetcher, office = fetching(lambda _channel: True)
    lanes = 23
    for number in range(1, lanes + 1):
        office.send(number, channel=f"c{number}", receipt=True)
    fetcher.flow(40)
    assert sorted(fetcher.ids) == [ident(number) for number in range(1, lanes + 1)]
    for number in range(lanes + 1, 3 * lanes + 1):
        office.send(number, channel=f"c{number % lanes + 1}")
    fetcher.flow(60)
    assert sorted(fetcher.ids) == [ident(number) for number in range(1, 3 * lanes + 1)]
    assert not office.outbox.lanes(THERE)
    assert office.told("peer_reset") == office.told("rolled_back") == 0


def test_heads_in_parts_still_show_that_a_node_was_restored(monkeypatch):
    """A fetching node that comes out of a backup is asked for the lanes that somebody awaits, and gets them again."""
    for module in (puller, batches, endpoint):
        monkeypatch.setattr(module, "MAX_LANES", 5)
    monkeypatch.setattr(reconcile, "LOOK", 5)  # never more than lanes that one request may name
    fetcher, office = fetching(lambda _channel: True)
    for number in range(1, 9):
        office.send(number, channel=f"c{number}")
    fetcher.flow(40)
    backup = copy.deepcopy(fetcher.data)
    for number in range(9, 12):
        office.send(number, channel=f"c{number}", receipt=True)
    fetcher.flow(40)
    assert len(fetcher.ids) == 11
    fetcher.restore(backup)
    fetcher.puller._inbox = fetcher.inbox
    fetcher.puller._talk.session = b""
    for flight in fetcher.wires.open:
        flight.lose()
    fetcher.turn()
    fetcher.clock.advance(100.0)
    fetcher.flow(60)
    assert sorted(job.id for _, job in fetcher.lives[-1]) == [ident(number) for number in range(9, 12)]


def test_all_lanes_that_are_looked_at_in_doubt_fit_into_one_request():
    """Else a peer that greeted would be asked for the heads of these, then of those, and never for both."""
    assert reconcile.LOOK <= MAX_LANES


# ── names ────────────────────────────────────────────────────────────────────────────────────────

BAD = ["", "/", "a/", "/a", "a//b", ".", "..", "../a", "a/..", "eve/../admin", "a/./b", "a\n", "a\0b", "a b", "\u00e4",
       "\x7f", "c" * 201, "a\\b", "eve/*", "\udcff", 5, None, b"a"]  # fmt: skip
OLD = ["/", "a//b", "eve/../admin", "."]


@pytest.mark.parametrize("name", BAD, ids=repr)
def test_what_is_no_channel_is_none_at_every_door(name, tmp_path):
    """By the function that every door asks, and by the doors: configuration, pattern, wire."""
    with pytest.raises(BadName):
        check_channel(name)
    if isinstance(name, str):
        with pytest.raises(ConfigError):
            from_mapping({"node": "shop", "channels": {name: {}}}, tmp_path)
        assert not Access((KEY,)).allows(name)
        assert not Access((KEY,), ("*", "eve/*")).allows(name)


@pytest.mark.parametrize("name", ["a", "a.b", "..a", "a..", "...", ".a/b..c", "a/b/c", "-", "c" * 200])
def test_good_names_are_taken(name):
    """Dots within a name, and names of several segments, are as good as ever."""
    assert check_channel(name) == check_pattern(name) == check_stored_channel(name) == name
    assert Access((KEY,)).allows(name)


@pytest.mark.parametrize("pattern", ["eve/../*", "eve//*", "*/", "/*", "a\n*", "", "eve/./?", "a b*"])
def test_patterns_that_match_no_channel_are_mistakes(pattern, tmp_path):
    """A pattern is a channel's name with wild cards, and the configuration says where it is not."""
    with pytest.raises(BadName):
        check_pattern(pattern)
    peers = {"eve": {"mode": "pull", "key": "k" * 32, "may_write": [pattern]}}
    with pytest.raises(ConfigError, match="may_write"):
        from_mapping({"node": "shop", "peers": peers}, tmp_path)


def test_a_pattern_does_not_let_a_name_out_of_its_place():
    """``eve/*`` is for what is below ``eve`` however the name is read."""
    sender, there = pair("eve/*")
    for number, channel in enumerate(("eve/a", "eve/../admin", "eve/a/b", "eve/."), 1):
        data = envelope.encode(Message(id=ident(number), sender=SHOP, channel=channel), b"x")
        sender.outbox.append([NewMessage(ident(number), channel, 5, (THERE,), data)])
    sender.flow(5)
    assert {source.channel for source, _ in there.entered} == {"eve/a", "eve/a/b"}
    assert {sender.state(number) for number in (2, 4)} == {"failed"}
    assert "bad_name" in sender.outbox.status(ident(2))[0].reason
    assert "push" not in {verb(flight) for flight in sender.wires.open}


@pytest.mark.parametrize("name", OLD)
def test_what_an_older_version_stored_can_be_taken_out(name):
    """Who looks, receives or wipes may name what a store can hold."""
    assert check_stored_channel(name) == name


@pytest.mark.parametrize("name", ["", "a\n", "a b", "c" * 201, None])
def test_what_no_version_stored_is_no_name_for_those_who_look_either(name):
    """Control characters and the like never were names."""
    with pytest.raises(BadName):
        check_stored_channel(name)


# ── what a node that fetches says of it ──────────────────────────────────────────────────────────


def test_what_a_fetching_node_refuses_fails_at_its_sender_with_the_reason():
    """Neither `accepted` nor `dead` after days: the same end as for a peer that is pushed to."""
    fetcher, office = fetching(lambda channel: channel == "news")
    office.send(1, channel="secret", receipt=True)
    office.send(2, channel="news", receipt=True)
    put(office, 3, "news", key="k" * 300)
    office.send(4, channel="news", receipt=True)
    fetcher.flow(12)
    assert fetcher.ids == [ident(2), ident(4)]
    assert [office.state(number) for number in (1, 2, 3, 4)] == ["failed", "accepted", "failed", "accepted"]
    assert "not_allowed" in office.outbox.status(ident(1))[0].reason
    assert "bad_message" in office.outbox.status(ident(3))[0].reason
    fetcher.clock.advance(70.0)  # the long poll that carried it ends
    fetcher.flow(4)
    assert not fetcher.puller._rejections


def put(sender, number, channel, **fields):
    """A message that no `send` would make."""
    message = Message(id=ident(number), sender=SHOP, channel=channel, **fields)
    data = envelope.encode(message, b"x")
    sender.outbox.append([NewMessage(ident(number), channel, 5, (THERE,), data)])


def test_a_refusal_is_said_again_until_it_was_heard():
    """A lost request loses no reason, and a doubled one changes nothing."""
    fetcher, office = fetching(lambda _channel: False)
    office.send(1, channel="secret")
    lost = 0
    for _ in range(12):
        for flight in fetcher.turn():
            if fetcher.puller._rejections and lost < 2:
                lost += 1
                flight.lose()
            else:
                flight.carry()
        fetcher.turn()
        fetcher.clock.advance(70.0)
    assert lost == 2
    assert office.state(1) == "failed"


def test_a_peer_ends_no_delivery_of_others_by_its_refusals():
    """Ids of messages for somebody else, of what has ended and of what never was are ignored."""
    fetcher, office = fetching(lambda _channel: True)
    office.send(1, channel="news", peer="berlin")
    office.send(2, channel="news", receipt=True)
    fetcher.flow(8)
    fetcher.puller._rejections.update({ident(number): ("forged", "x") for number in (1, 2, 99)})
    office.send(3, channel="news", receipt=True)
    fetcher.flow(8)
    assert [office.state(number) for number in (1, 2, 3)] == ["queued", "accepted", "accepted"]
