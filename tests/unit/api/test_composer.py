"""The rules of `send`: routes, defaults of a channel, limits, ids, times. Nothing is stored here."""

import re
import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from support.one_node import configure, facts

from dropr_core.api.composer import Composer
from dropr_core.api.serialization import Serialization
from dropr_core.bodies.store import BodyFiles
from dropr_core.errors import BadName, TooBig, UnknownPeer, UsageError
from dropr_core.model import envelope
from dropr_core.model.names import MessageId, id_of_key
from dropr_core.system.clock import FakeClock
from dropr_core.testing.builders import make_context

CHANNELS = {
    "orders": {"to": "all", "priority": 2, "receipt": True, "delay": "1s", "expires_in": "1h"},
    "plain": {"to": "rome", "serializer": "json"},
    "unrouted": {},
}


@pytest.fixture
def compose(tmp_path):
    """A composer: called with a value and options, it gives the message to store."""
    config = configure(tmp_path, channels=CHANNELS, limits={"min_free": 0, "max_body": "100KiB", "inline_body": "1KiB"})
    clock = FakeClock()
    serialization = Serialization(config, make_context(tmp_path, clock))
    composer = Composer(config, clock, serialization.dump, lambda: BodyFiles(tmp_path / "bodies", 0))

    def call(value=b"x", **options):
        return composer.compose(value, options).outgoing

    call.composer, call.clock = composer, clock
    return call


def test_a_channel_gives_what_the_caller_does_not_say(compose):
    """Route, priority, receipt, delay and life are the channel's; each can be said otherwise."""
    as_configured = compose(channel="orders")
    assert as_configured.peers == ("berlin", "rome")
    assert (as_configured.priority, as_configured.receipt, as_configured.expires_in) == (2, True, 3600.0)
    assert as_configured.delayed
    otherwise = compose(channel="orders", to="rome", priority=7, receipt=False, delay=0, expires_in="30s")
    assert otherwise.peers == ("rome",)
    assert (otherwise.priority, otherwise.receipt, otherwise.expires_in) == (7, False, 30.0)
    assert not otherwise.delayed


def test_a_channel_that_is_not_configured_needs_to(compose):
    """Its messages have the defaults of everybody: channel `common`, priority 5, no receipt."""
    message = compose(to="rome")
    assert (message.channel, message.priority, message.receipt, message.expires_in) == ("common", 5, False, None)
    for channel in (None, "other", "unrouted"):
        with pytest.raises(UnknownPeer, match=r"has no `to:`.*known: all, berlin, rome"):
            compose(channel=channel)


def test_a_peer_that_is_named_twice_gets_one(compose):
    """Groups and peers may overlap; the order is that in which they were named."""
    assert compose(to=["rome", "all", "rome"]).peers == ("rome", "berlin")
    assert compose(to=iter(["berlin"])).peers == ("berlin",)


def test_an_unknown_peer_is_named_with_those_that_exist(compose):
    """Nobody searches the file for a slip of the pen."""
    with pytest.raises(UnknownPeer, match=r"'roma'.*known: all, berlin, rome"):
        compose(to=["rome", "roma"])


@pytest.mark.parametrize("channel", ["", "a b", "x" * 201, 7])
def test_a_channel_has_a_name_that_everybody_may_have(compose, channel):
    """Whatever becomes of names in other systems, none of these begins its way."""
    with pytest.raises(BadName):
        compose(channel=channel, to="rome")


def test_ids_are_given_or_made_from_a_key(compose):
    """Text, UUID and bytes of one id are the same; a key is always the same id; without either each is new."""
    identity = uuid.uuid4()
    assert compose(to="rome", id=str(identity)).id == compose(to="rome", id=identity).id == identity.bytes
    assert compose(to="rome", dedup_key="order 7").id == id_of_key("shop", "common", "order 7")
    assert compose(to="rome", dedup_key="order 7").id != compose(to="rome", channel="other", dedup_key="order 7").id
    assert compose(to="rome").id < compose(to="rome").id
    with pytest.raises(UsageError, match="not both"):
        compose(to="rome", id=identity, dedup_key="order 7")
    with pytest.raises(UsageError, match="dedup_key="):
        compose(to="rome", id="order 7")


def test_the_fingerprint_of_a_repeated_send_says_whether_it_is_the_same(compose):
    """Equal whenever it was sent and however the peers were named; different for any other content."""

    def mark(value=b"x", **options):
        return compose(value, **{"id": "00000000-0000-4000-8000-000000000000", "to": ["rome", "berlin"]} | options)

    first = mark().fingerprint
    compose.clock.advance(100)
    assert mark().fingerprint == first
    assert mark(to="all").fingerprint == first
    others = [mark(b"y"), mark(to="rome"), mark(priority=1), mark(headers={"a": "b"}), mark(receipt=True),
              mark(key="k"), mark(expires_in=9), mark(channel="other")]  # fmt: skip
    assert len({first, *(other.fingerprint for other in others)}) == 1 + len(others)
    assert compose(to="rome").fingerprint is None, "what cannot be sent twice needs none"


@pytest.mark.parametrize(
    "life", [{"delay": 10, "expires_in": 10}, {"delay": "1m", "expires_in": timedelta(seconds=30)}]
)
def test_what_nobody_could_ever_get_is_not_sent(compose, life):
    """A message that expires before its delay is over is a mistake, and said to be one."""
    with pytest.raises(UsageError, match="expire before any consumer"):
        compose(to="rome", **life)


@pytest.mark.parametrize("life", [{"delay": -1}, {"expires_in": "soon"}, {"delay": float("nan")}])
def test_times_are_durations(compose, life):
    """The option that is wrong is named."""
    with pytest.raises(UsageError, match=next(iter(life))):
        compose(to="rome", **life)


def test_a_body_stands_in_its_envelope_up_to_the_limit_and_beyond_it_beside(compose):
    """Beyond it, the lane is that of large bodies, which nothing small waits for."""
    composer = compose.composer
    small = composer.compose(b"x" * 1024, {"to": "rome"})
    assert small.written is None
    assert envelope.body_of(small.outgoing.envelope) == b"x" * 1024
    large = composer.compose(b"x" * 1025, {"to": "rome", "priority": 3})
    assert large.outgoing.priority == 13
    assert envelope.reference_of(large.outgoing.envelope) == large.written.reference
    assert large.written.reference.size == 1025
    with pytest.raises(TooBig, match=r"102401 bytes.*102400 \(limits.max_body\)"):
        compose(b"x" * 102_401, to="rome")


def test_a_file_brings_its_name_and_a_header_of_the_caller_wins(compose, tmp_path):
    """The path is this machine's matter; the name is worth something to the other."""
    path = tmp_path / "invoice.pdf"
    path.write_bytes(b"pdf")
    assert facts(compose(path, to="rome"))["headers"] == {"filename": "invoice.pdf"}
    named = compose(path, to="rome", headers={"filename": "7.pdf", "kind": "invoice"})
    assert facts(named)["headers"] == {"filename": "7.pdf", "kind": "invoice"}
    with pytest.raises(UsageError, match=r"missing\.pdf"):
        compose(tmp_path / "missing.pdf", to="rome")


@pytest.mark.parametrize(
    ("value", "to", "channel"),
    [
        (b"bytes", "rome", None),
        ("text", ["rome", "berlin"], "other"),
        (b"bytes", None, "orders"),
        ({"a": [1, None]}, None, "plain"),
        (b"x" * 5000, "all", None),
    ],
)
def test_the_short_way_makes_the_same_message(compose, value, to, channel):
    """A message about which nothing else was said differs from one made the long way in id and time only."""
    composer, said = compose.composer, {name: it for name, it in (("to", to), ("channel", channel)) if it is not None}
    for _ in range(2):  # the second time the template of the route is there
        short, long = composer.compose_plain(value, to, channel), composer.compose(value, said)
        assert facts(short.outgoing) == facts(long.outgoing)
        assert short.outgoing._replace(id=b"", envelope=b"") == long.outgoing._replace(id=b"", envelope=b"")
        assert (short.written is None) == (long.written is None)
        if short.written is None:
            assert envelope.body_of(short.outgoing.envelope) == envelope.body_of(long.outgoing.envelope)


def test_the_short_way_refuses_what_the_long_way_refuses(compose):
    """The same errors, before anything was made."""
    for value, to, channel, error in (
        (object(), "rome", None, UsageError),
        (b"x", "nobody", None, UnknownPeer), (b"x", None, "unrouted", UnknownPeer),
        (b"x" * 102_401, "rome", None, TooBig), (b"x", "rome", "bad name", BadName),
    ):  # fmt: skip
        with pytest.raises(error):
            compose.composer.compose_plain(value, to, channel)


def test_what_a_channel_cannot_say_is_refused_with_the_remedy(compose):
    """Without a serializer only bytes and text go as they are."""
    with pytest.raises(UsageError, match=r"channels\.common\.serializer: json"):
        compose({"a": 1}, to="rome")


def test_a_moment_is_a_delay_from_now(compose):
    """`at` waits until that moment, whatever its time zone; a past one is now, and beats the channel's delay."""
    now = datetime.fromtimestamp(compose.clock.wall(), UTC)
    later = (now + timedelta(minutes=5)).astimezone(timezone(timedelta(hours=-7)))
    assert envelope.header_of(compose(to="rome", at=later).envelope).delay == 300.0
    assert envelope.header_of(compose(channel="orders", at=now - timedelta(days=1)).envelope).delay == 0.0
    local, _, _ = compose.composer.compose_local(b"x", "jobs", {"at": later})
    assert local.delay == 300.0


@pytest.mark.parametrize("channel", ["orders", "plain", "unrouted", "unknown/channel"])
@pytest.mark.parametrize("value", [b"", b"x", b"y" * 200, "text", {"a": 1}], ids=str)
def test_put_without_options_makes_the_same_message_in_less_time(compose, value, channel):
    """By what all of a channel have in common: the bytes, the priority and the refusals of the long way, the second
    time as the first.
    """
    composer = compose.composer
    composer._make_id = lambda *_: MessageId(b"i" * 16)
    for _ in range(2):
        try:
            message, data, written = composer.compose_local(value, channel, {})
        except UsageError as error:
            with pytest.raises(UsageError, match=re.escape(str(error))):
                composer.compose_local_plain(value, channel)
            continue
        assert written is None
        assert composer.compose_local_plain(value, channel) == (b"i" * 16, message.priority, data)


def test_put_leaves_what_is_large_or_wrong_to_the_long_way(compose, tmp_path):
    """A body for a file of its own, a file, a channel that is none, and headers that come along with each."""
    (tmp_path / "movie").write_bytes(b"m")
    assert compose.composer.compose_local_plain(b"x" * 70_000, "jobs") is None
    assert compose.composer.compose_local_plain(tmp_path / "movie", "jobs") is None
    assert compose.composer.compose_local_plain(b"x", "jobs") is not None
    compose.composer._propagate = lambda _: {"traceparent": "00-1-2-01"}
    assert compose.composer.compose_local_plain(b"x", "jobs") is None
    compose.composer._propagate = None
    for channel in ("no channel", 7, ["jobs"], ""):
        with pytest.raises(UsageError):
            compose.composer.compose_local_plain(b"x", channel)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"at": datetime(2026, 12, 24, tzinfo=UTC).replace(tzinfo=None)}, r"no time zone.*\.astimezone\(\)"),
        ({"at": "2026-12-24T18:00Z"}, r"is not a datetime with a time zone"),
        ({"at": datetime(2026, 12, 24, tzinfo=UTC), "delay": 5}, "delay= or at=, not both"),
        ({"at": datetime(2026, 12, 24, tzinfo=UTC), "expires_in": 5}, "would expire before"),
    ],
)
def test_a_moment_that_says_nothing_certain_is_refused(compose, options, says):
    """A naive datetime, a text, a second delay: each is said with what to write, for peers and for this node."""
    with pytest.raises(UsageError, match=says):
        compose(to="rome", **options)
    with pytest.raises(UsageError, match=says):
        compose.composer.compose_local(b"x", "jobs", options)


def test_the_same_moment_said_later_is_the_same_message(compose):
    """With a key of its own, `at` counts as the moment that was said and not as the delay that is left."""
    moment = datetime.fromtimestamp(compose.clock.wall(), UTC) + timedelta(hours=1)
    first = compose(to="rome", dedup_key="k", at=moment)
    compose.clock.advance(60)
    assert compose(to="rome", dedup_key="k", at=moment).fingerprint == first.fingerprint
    assert compose(to="rome", dedup_key="k", at=moment + timedelta(seconds=1)).fingerprint != first.fingerprint
