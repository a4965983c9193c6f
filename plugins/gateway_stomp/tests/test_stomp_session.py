"""The session: which frames may come when, and what is under way."""

import pytest
from dropr_gateway_stomp.events import Commit, Connect, Disconnect, Event, Nothing, Send, Settle, Subscribe, Unsubscribe
from dropr_gateway_stomp.frames import FrameReader, ProtocolError, Version, encode
from dropr_gateway_stomp.heartbeats import HeartBeats, parse
from dropr_gateway_stomp.session import Session
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule


def frame(command, body=b"", **headers):
    return encode(command, [(name.replace("_", "-"), value) for name, value in headers.items()], body)


def ask(session, data):
    session.feed(data)
    found = []
    while (event := session.next()) is not None:
        found.append(event)
    return found


def connected(version="1.2", **options):
    session = Session(**options)
    ask(session, frame("CONNECT", accept_version=version, host="x"))
    session.accept()
    return session


def message(data):
    reader = FrameReader()
    reader.version = Version.V12
    reader.feed(data)
    return reader.next()


@pytest.mark.parametrize(
    ("wanted", "got"),
    [({}, "1.0"), ({"accept_version": "1.1,1.2,1.0"}, "1.2"), ({"accept_version": "1.0,1.1,2.0"}, "1.1"),
     ({"accept_version": "1.0"}, "1.0")],
)  # fmt: skip
def test_the_highest_common_version_is_spoken(wanted, got):
    """As the client offers it; without an offer it is 1.0."""
    session = Session()
    [event] = ask(session, frame("STOMP", login="me", passcode="p", **wanted))
    assert isinstance(event.what, Connect)
    assert (event.what.login, event.what.passcode) == ("me", "p")
    assert message(session.accept("0,0")).headers["version"] == got


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (frame("CONNECT", accept_version="2.0"), "no common version"),
        (frame("SEND", destination="/queue/a"), "first frame"),
        (frame("CONNECT") + frame("CONNECT"), "connected already"),
        (b"GET / HTTP/1.1\r\n\r\n\0", "first frame"),
    ],
)
def test_what_is_no_beginning_is_refused(data, says):
    """A connection begins with CONNECT, once, in a version of ours; the error names those."""
    session = Session()
    with pytest.raises(ProtocolError, match=says):
        ask(session, data)
    assert message(session.error("no")).headers["version"] == "1.0,1.1,1.2"
    assert ask(session, frame("CONNECT")) == []


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (frame("SEND"), "needs the header 'destination'"),
        (frame("SEND", destination="/queue/a", transaction="t"), "not open"),
        (frame("SUBSCRIBE", destination="/queue/a"), "needs the header 'id'"),
        (frame("SUBSCRIBE", destination="/queue/a", id="1", ack="maybe"), "ack must be"),
        (frame("SUBSCRIBE", destination="/queue/a", id="1", prefetch_count="x"), "must be a number"),
        (frame("SUBSCRIBE", destination="/queue/a", id="1") * 2, "exists already"),
        (frame("UNSUBSCRIBE", id="1"), "no subscription"),
        (frame("ACK", id="1"), "not delivered here"),
        (frame("ACK"), "needs the header 'id'"),
        (frame("BEGIN", transaction="t") * 2, "open already"),
        (frame("BEGIN"), "needs the header"),
        (frame("COMMIT", transaction="t"), "not open"),
        (frame("ABORT", transaction="t"), "not open"),
        (frame("CONNECTED"), "no command"),
        (frame("SUBSCRIBE", id="1", destination="a") + frame("SUBSCRIBE", id="2", destination="a")
         + frame("SUBSCRIBE", id="3", destination="a"), "2 subscriptions"),
        (frame("BEGIN", transaction="1") + frame("BEGIN", transaction="2"), "1 open transactions"),
        (frame("BEGIN", transaction="1") + frame("SEND", b"x" * 99, transaction="1", destination="a"), "100 bytes"),
    ],
)  # fmt: skip
def test_a_frame_that_may_not_come_is_refused(data, says):
    """Each error says what is wrong; the receipt that was asked for is known to it."""
    session = connected(subscriptions=2, transactions=1, transaction_bytes=100)
    with pytest.raises(ProtocolError, match=says):
        ask(session, data)
    with pytest.raises(ProtocolError) as caught:
        ask(connected(), frame("SEND", receipt="r7"))
    assert caught.value.receipt == "r7"


def test_frames_become_events():
    """In their order, each with the receipt that it asked for."""
    session = connected()
    found = ask(session, frame("SEND", b"hi", destination="/queue/a", receipt="1")
                + frame("SUBSCRIBE", destination="/queue/b", id="s", selector="a = 1", prefetch_count="7", receipt="2")
                + frame("UNSUBSCRIBE", id="s") + frame("DISCONNECT", receipt="3")
                + frame("SEND", destination="x"))  # fmt: skip
    assert [type(one.what) for one in found] == [Send, Subscribe, Unsubscribe, Disconnect]
    assert [one.receipt for one in found] == ["1", "2", None, "3"]
    assert (found[0].what.destination, found[0].what.body) == ("/queue/a", b"hi")
    assert (found[1].what.prefetch, found[1].what.selector, found[1].what.ack) == (7, "a = 1", "auto")
    assert message(session.receipt("3")).headers == {"receipt-id": "3"}
    assert session.receipt(None) == b""


def test_acknowledging_is_cumulative_where_the_client_said_so():
    """ack:client takes all before it on the same subscription, client-individual the one, auto none."""
    session = connected()
    ask(session, frame("SUBSCRIBE", destination="/queue/a", id="all", ack="client"))
    ask(session, frame("SUBSCRIBE", destination="/queue/b", id="one", ack="client-individual"))
    ask(session, frame("SUBSCRIBE", destination="/queue/c", id="auto", prefetch_count="3"))
    ids = {}
    for sub, ticket in [("all", 1), ("one", 2), ("all", 3), ("one", 4), ("all", 5), ("auto", 6)]:
        ids[ticket] = message(session.deliver(sub, ticket, f"m{ticket}", [], b"")).headers.get("ack")
    assert ids[6] is None
    assert session.credit("all") == 97
    assert session.credit("auto") == 3
    assert ask(session, frame("ACK", id=ids[4]))[0].what.tickets == [4]
    [event] = ask(session, frame("NACK", id=ids[3]))
    assert (event.what.good, event.what.tickets) == (False, [1, 3])
    assert ask(session, frame("UNSUBSCRIBE", id="all"))[0].what.unsettled == [5]
    assert session.credit("all") == 0


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_before_1_2_a_message_is_acknowledged_by_its_id(version):
    """On the subscription that is named; 1.0 needs to name none, neither here nor in SUBSCRIBE."""
    session = connected(version)
    named = {} if version == "1.0" else {"id": "s"}
    ask(session, frame("SUBSCRIBE", destination="/queue/a", ack="client", **named))
    name = "/queue/a" if version == "1.0" else "s"
    got = message(session.deliver(name, "t", "m:1", [("destination", "/queue/a")], b"x"))
    assert ("subscription" in got.headers) is (version == "1.1")
    more = {} if version == "1.0" else {"subscription": "s"}
    session.feed(encode("ACK", [("message-id", "m:1"), *more.items()], b"", Version(version)))
    assert session.next().what.tickets == ["t"]
    gone = {"destination": "/queue/a"} if version == "1.0" else {"id": "s"}
    session.feed(encode("UNSUBSCRIBE", gone.items(), b"", Version(version)))
    assert session.next().what.id == name


def test_a_transaction_is_kept_until_it_is_committed():
    """Sends and acknowledgements in their order, once; ABORT makes deliveries acknowledgeable again, in their order."""
    session = connected()
    ask(session, frame("SUBSCRIBE", destination="/queue/a", id="s", ack="client"))
    for ticket in (1, 2, 3):
        session.deliver("s", ticket, f"m{ticket}", [], b"")
    begin, send = frame("BEGIN", transaction="t"), frame("SEND", b"x", destination="d", transaction="t", receipt="r")
    found = ask(session, begin + frame("ACK", id="2", transaction="t") + send)
    assert found == [Event(Nothing()), Event(Nothing()), Event(Nothing(), "r")]
    assert session.subscriptions["s"].tickets == [3]
    assert ask(session, frame("ABORT", transaction="t")) == [Event(Nothing())]
    assert session.subscriptions["s"].tickets == [1, 2, 3]
    found = ask(
        session, begin + frame("ACK", id="2", transaction="t") + send + frame("COMMIT", transaction="t", receipt="c")
    )
    commit = found[-1]
    assert isinstance(commit.what, Commit)
    assert commit.receipt == "c"
    assert [one.body for one in commit.what.sends] == [b"x"]
    assert [one.tickets for one in commit.what.settles] == [[1, 2]]
    with pytest.raises(ProtocolError):
        ask(session, frame("COMMIT", transaction="t"))


def test_heart_beats_are_those_that_both_can_and_want():
    """The table of the specification; half of an interval is left as a margin, and twice the client's is waited for."""
    assert parse(" 10, 20 ") == (10, 20)
    for wrong in ("", "1", "a,b", "-1,2", "1,2,3", "9999999999,1"):
        with pytest.raises(ProtocolError):
            parse(wrong)
    none = HeartBeats((0, 0), (5000, 5000), 0.0)
    assert (none.send_every, none.expect_every, none.next()) == (None, None, float("inf"))
    beats = HeartBeats((1000, 4000), (2000, 3000), 10.0)
    assert (beats.send_every, beats.expect_every) == (4.0, 3.0)
    assert not beats.due(11.9)
    assert beats.due(12.0)
    beats.sent(12.0)
    assert not beats.due(13.0)
    assert beats.next() == 14.0
    assert not beats.dead(15.9)
    assert beats.dead(16.0)
    beats.received(16.0)
    assert not beats.dead(16.0)


class Deliveries(RuleBasedStateMachine):
    """What is delivered is settled once, or is still under way: none is lost and none doubled, with transactions."""

    def __init__(self):
        super().__init__()
        self.session = connected(prefetch=5)
        for name, ack in (("c", "client"), ("i", "client-individual")):
            ask(self.session, frame("SUBSCRIBE", destination="d", id=name, ack=ack))
        self.tickets = 0
        self.delivered, self.settled, self.inside = set(), [], []
        self.open = False

    @rule(name=st.sampled_from("ci"))
    def deliver(self, name):
        if self.session.credit(name):
            self.tickets += 1
            self.session.deliver(name, self.tickets, f"m{self.tickets}", [], b"")
            self.delivered.add(self.tickets)

    @rule(data=st.data(), name=st.sampled_from("ci"), kind=st.sampled_from(["ACK", "NACK"]), inside=st.booleans())
    def settle(self, data, name, kind, inside):
        numbers = list(self.session.subscriptions[name].unsettled)
        if numbers:
            more = {"transaction": "t"} if inside and self.open else {}
            [event] = ask(self.session, frame(kind, id=data.draw(st.sampled_from(numbers)), **more))
            if isinstance(event.what, Settle):
                self.settled += event.what.tickets

    @precondition(lambda self: not self.open)
    @rule()
    def begin(self):
        ask(self.session, frame("BEGIN", transaction="t"))
        self.open = True

    @precondition(lambda self: self.open)
    @rule(how=st.sampled_from(["COMMIT", "ABORT"]))
    def end(self, how):
        [event] = ask(self.session, frame(how, transaction="t"))
        if how == "COMMIT":
            self.settled += [ticket for one in event.what.settles for ticket in one.tickets]
        self.open = False

    @invariant()
    def nothing_is_lost_or_doubled(self):
        under_way = [ticket for one in self.session.subscriptions.values() for ticket in one.tickets]
        for one in self.session.subscriptions.values():
            assert one.tickets == sorted(one.tickets)
        assert len(set(self.settled)) == len(self.settled)
        assert not set(self.settled) & set(under_way)
        if not self.open:
            assert set(self.settled) | set(under_way) == self.delivered


Deliveries.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestDeliveries = Deliveries.TestCase


@given(st.binary(max_size=120))
def test_no_bytes_break_a_session(data):
    """Whatever comes after CONNECT is an event or a ProtocolError."""
    try:
        ask(connected(), b"SEND\n" + data)
    except ProtocolError:
        pass
