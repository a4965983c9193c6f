"""The request `trace`: what a node tells a peer about one message, and what it never tells."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.one_node import KEY, Peer, open_node

from dropr_core.contracts.records import Delivery, JobInfo
from dropr_core.contracts.transport import Caller
from dropr_core.errors import BadFrame
from dropr_core.model.limits import MAX_SECONDS, MAX_SEQUENCE
from dropr_core.model.message import State
from dropr_core.model.names import MessageId
from dropr_core.protocol import messages as wire
from dropr_core.protocol.access import Access
from dropr_core.protocol.endpoint import Endpoint
from dropr_core.protocol.frames import REQUEST, FrameHeader, open_body, read_head, request_id, seal
from dropr_core.protocol.tracing import MAX_ERRORS, MOST, build_trace, last_lines

NUMBERS = st.integers(0, MAX_SEQUENCE)
AGES = st.floats(0, MAX_SECONDS)
TEXT = st.text(st.characters(codec="utf-8"), max_size=50)
DELIVERIES = st.builds(wire.TracedDelivery, TEXT, NUMBERS, TEXT, NUMBERS, AGES, TEXT, st.booleans(), st.booleans())
JOBS = st.builds(
    wire.TracedJob, TEXT, NUMBERS, TEXT, AGES, NUMBERS, TEXT, TEXT, st.none() | AGES, st.booleans()
)  # fmt: skip


@given(st.lists(DELIVERIES, max_size=3), st.lists(JOBS, max_size=3))
def test_an_answer_comes_back_as_it_was(deliveries, jobs):
    """Whatever is told arrives."""
    told = wire.Traced(deliveries, jobs)
    assert wire.decode(wire.encode(told), wire.Traced) == told


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_a_bad_frame(data):
    """A peer that answers nonsense is a peer that did not answer; nothing else is raised."""
    try:
        wire.decode(data, wire.Traced)
    except BadFrame:
        return


@given(st.binary(max_size=40).filter(lambda data: len(data) != 16))
def test_only_an_id_is_asked_for(data):
    """An id has 16 bytes."""
    with pytest.raises(BadFrame):
        wire.decode(wire.encode(wire.AskTrace(data)), wire.AskTrace)


class Half:
    """A storage that gives what it is told to, whatever was selected."""

    def __init__(self, *found):
        self.found = found

    def all(self, _selection):
        return iter(self.found)


@given(st.floats(), st.integers(), st.none() | st.floats(), st.text(max_size=50))
def test_whatever_a_store_says_fits_the_wire(age, attempts, due, text):
    """Strange ages, counts and texts of a store are told as something that the asker can read."""
    attempts = min(attempts, MAX_SEQUENCE)
    job = JobInfo(1, MessageId(b"i" * 16), "shop", "jobs", 5, State.READY, age, 3, attempts, text, text, due)
    sent = Delivery(MessageId(b"i" * 16), "shop", "jobs", 5, State.QUEUED, 1, age, 3, text)
    told = build_trace(Half(sent), Half(job), "shop", job.id)
    assert wire.decode(wire.encode(told), wire.Traced) == told


def test_a_storage_that_selects_badly_tells_nothing_of_others():
    """Whose message it is, is checked once more."""
    other = Delivery(MessageId(b"i" * 16), "rome", "jobs", 5, State.QUEUED, 1, 0.0, 3)
    told = build_trace(Half(other), Half(), "shop", other.id)
    assert told == wire.Traced([], [])
    many = [attrs.evolve(other, peer="shop")] * (MOST + 5)
    assert len(build_trace(Half(*many), Half(), "shop", other.id).deliveries) == MOST


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x85\u2028\u2029"), max_size=9000), max_size=9)
)
def test_the_last_errors_fit(lines):
    """A long history of errors loses its beginning, never its end, and is never longer than a limit."""
    told = last_lines("\n".join(lines))
    assert len(told.encode()) <= MAX_ERRORS
    whole = "\n".join(lines).splitlines()
    if whole and len(whole[-1]) < 1000:
        assert told.splitlines()[-1:] == [whole[-1]] or not whole[-1]


# ── over the endpoint ────────────────────────────────────────────────────────────────────────────


class Asker:
    """A peer of a node, as its endpoint sees it."""

    def __init__(self, node, peer):
        access = {name: Access((KEY.encode(),)) for name in ("berlin", "rome")}
        self.endpoint = Endpoint("shop", b"n" * 16, access, node.outbox, node.inbox)
        self.peer, self.counter, self.session = peer, 0, b""
        self.session = wire.decode(self.ask(wire.HELLO, wire.Hello(1, b"p" * 16))[1], wire.Welcome).session

    def ask(self, verb, value):
        """(status, body) of the answer."""
        self.counter += 1
        header = FrameHeader(sender=self.peer, receiver="shop", request=request_id(), verb=verb, digest=b"",
                             session=self.session, counter=self.counter)  # fmt: skip
        frame, _ = seal(REQUEST, header, wire.encode(value), KEY.encode(), 0)
        answer = self.endpoint.answer(self.endpoint.open(frame, Caller("127.0.0.1")))
        head = read_head(answer, 1 << 20)
        return head.header.status, bytes(open_body(head, answer)[0])

    def trace(self, identity):
        """What is told of a message."""
        status, body = self.ask(wire.TRACE, wire.AskTrace(identity))
        assert status == "ok"
        assert b"secret" not in body
        return wire.decode(body, wire.Traced)


def test_a_peer_learns_of_what_it_sent_and_of_what_goes_to_it(tmp_path):
    """State, place and age, and nothing of the content."""
    with open_node(tmp_path) as node:
        (came,) = Peer(node).push(b"secret")
        sent = node.send(b"secret", to=["berlin", "rome"], channel="orders", headers={"secret": "secret"})
        berlin = Asker(node, "berlin")
        (job,) = berlin.trace(came).jobs
        assert (job.channel, job.state, job.attempts) == ("jobs", "ready", 0)
        told = berlin.trace(bytes.fromhex(sent.id.replace("-", "")))
        assert [(one.channel, one.state, one.sequence) for one in told.deliveries] == [("orders", "queued", 1)]
        assert told.jobs == []


def test_nobody_learns_of_the_messages_of_others(tmp_path):
    """A message between this node and berlin is for rome as if it had never been."""
    with open_node(tmp_path) as node:
        (came,) = Peer(node).push(b"secret")
        sent = node.send(b"secret", to="berlin", channel="orders")
        rome = Asker(node, "rome")
        assert rome.trace(came) == wire.Traced([], [])
        assert rome.trace(bytes.fromhex(sent.id.replace("-", ""))) == wire.Traced([], [])


def test_a_node_that_does_not_know_the_verb_says_so(tmp_path, monkeypatch):
    """As an older version does: a signed refusal, which costs nobody anything."""
    with open_node(tmp_path) as node:
        asker = Asker(node, "berlin")
        monkeypatch.setattr(asker.endpoint, "_verbs", {})
        assert asker.ask(wire.TRACE, wire.AskTrace(b"i" * 16))[0] == "unsupported"


def test_a_question_is_good_once(tmp_path):
    """Who listens on the line and asks the same again gets no answer with the state of today."""
    with open_node(tmp_path) as node:
        asker = Asker(node, "berlin")
        asker.trace(b"i" * 16)
        asker.counter -= 1
        assert asker.ask(wire.TRACE, wire.AskTrace(b"i" * 16))[0] == "replayed"
