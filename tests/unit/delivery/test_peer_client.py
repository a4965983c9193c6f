"""The talk with one peer: what is taken for its answer, which key is tried, and what a broken transport costs."""

from concurrent.futures import Future

import pytest

from dropr_core.delivery.peer_client import PeerClient
from dropr_core.errors import Refused, Unanswered, Unreachable
from dropr_core.protocol import messages as wire
from dropr_core.protocol.frames import ANSWER, OK, REQUEST, FrameHeader, read_head, seal

KEYS = (b"k" * 32, b"n" * 32)
HEADS = wire.HeadsAnswer([(1, bytes(16))])


class Road:
    """A connection in the hand of the test."""

    def __init__(self):
        self.asked, self.broken, self.closed = [], None, 0

    def ask(self, frame, *, idle):
        """Remember the request; `answer` comes later."""
        if self.broken is not None:
            raise self.broken
        self.asked.append((frame, Future(), idle))
        return self.asked[-1][1]

    def close(self):
        """Count."""
        self.closed += 1
        if self.broken is not None:
            raise self.broken


@pytest.fixture
def road():
    return Road()


@pytest.fixture
def posted():
    return []


@pytest.fixture
def client(road, posted):
    return PeerClient("shop", "ware", KEYS, lambda: road, posted.append, 30.0)


@pytest.fixture
def told(client, posted):
    """Ask for heads; a list that will have the answer once `posted` was done."""

    def ask():
        answers = []
        client.ask(wire.HEADS, wire.AskHeads(bytes(8), []), wire.HeadsAnswer, answers.append)
        return answers

    return ask


def do(posted):
    """The owner's thread has its turn."""
    while posted:
        posted.pop(0)()


def answer(frame, value=HEADS, key=KEYS[0], status=OK, kind=ANSWER, **changes):
    """The answer that the peer would give to a request, with changes to its head."""
    head = read_head(frame, 1 << 20)
    asked = head.header
    facts = {"sender": asked.receiver, "receiver": asked.sender, "request": asked.request, "verb": asked.verb,
             "digest": b"", "status": status, "proof": head.mac} | changes  # fmt: skip
    body = value if isinstance(value, bytes) else wire.encode(value)
    return seal(kind, FrameHeader(**facts), body, key, 0)[0]


def test_an_answer_that_verifies_is_handed_over_in_the_owners_thread(client, road, posted, told):
    """Not before its turn, and once."""
    answers = told()
    assert client.under_way == 1
    frame, future, idle = road.asked[0]
    assert idle == 30.0
    future.set_result(answer(frame))
    assert answers == []
    do(posted)
    assert answers == [HEADS]
    assert client.under_way == 0


@pytest.mark.parametrize(
    "spoil",
    [
        {"key": b"x" * 32},
        {"kind": REQUEST},
        {"sender": "mallory"},
        {"receiver": "mallory"},
        {"request": b"another request."},
        {"verb": wire.PUSH},
        {"proof": b"not the request's"},
    ],
    ids=lambda spoil: next(iter(spoil)),
)
def test_what_is_not_this_peers_answer_to_this_request_is_no_answer(road, posted, told, spoil):
    """Another key, another question, a request sent back: as if nothing had come."""
    answers = told()
    frame, future, _ = road.asked[0]
    future.set_result(answer(frame, **spoil))
    do(posted)
    assert [type(word) for word in answers] == [Unanswered]


@pytest.mark.parametrize("data", [b"", b"garbage", b"\0" * 500])
def test_garbage_is_no_answer(road, posted, told, data):
    """Whatever stands between us and the peer may say anything."""
    answers = told()
    road.asked[0][1].set_result(data)
    do(posted)
    assert [type(word) for word in answers] == [Unanswered]


def test_a_signed_refusal_is_the_peers_word(road, posted, told):
    """Its code and text, and that it was signed."""
    answers = told()
    frame, future, _ = road.asked[0]
    future.set_result(answer(frame, b"wait for me", status="busy"))
    do(posted)
    ((refusal,),) = [answers]
    assert isinstance(refusal, Refused)
    assert (refusal.code, refusal.signed, "wait for me" in str(refusal)) == ("busy", True, True)


def test_during_a_rotation_the_other_key_is_tried_next(road, posted, told):
    """The peer that knows only one of the two says that it does not know the other."""
    answers = told()
    road.asked[0][1].set_exception(Refused("bad_signature", "who?", signed=False))
    do(posted)
    told()
    frame, future, _ = road.asked[1]
    future.set_result(answer(frame, key=KEYS[1]))
    do(posted)
    assert [type(word) for word in answers] == [Refused]
    third = told()
    road.asked[2][1].set_result(answer(road.asked[2][0], key=KEYS[1]))
    do(posted)
    assert third == [HEADS]


@pytest.mark.parametrize("error", [Unreachable("no road"), Refused("busy", "", signed=False)])
def test_what_a_transport_says_is_passed_on(road, posted, told, error):
    """In the words that it has."""
    answers = told()
    road.asked[0][1].set_exception(error)
    do(posted)
    assert answers == [error]


def test_a_transport_that_breaks_its_contract_is_unanswered(road, posted, told):
    """Whatever it raises, wherever: its own peer is not reached, and nobody else notices."""
    later = told()
    road.asked[0][1].set_exception(KeyError("bug"))
    road.broken = ZeroDivisionError("bug")
    at_once = told()
    do(posted)
    for answers in (later, at_once):
        assert [type(word) for word in answers] == [Unanswered]
        assert "bug" in str(answers[0])


def test_each_request_has_a_number_of_its_own(road, told):
    """The peer refuses one that it has seen."""
    for _ in range(3):
        told()
    heads = [read_head(frame, 1 << 20).header for frame, _, _ in road.asked]
    assert [head.counter for head in heads] == [1, 2, 3]
    assert len({head.request for head in heads}) == 3


def test_closing_harms_nobody(client, road, told, caplog):
    """Twice is nothing; a transport that raises is written into the log."""
    client.close()
    assert road.closed == 0, "never opened"
    told()
    road.broken = ZeroDivisionError("bug")
    client.close()
    client.close()
    assert road.closed == 1
    assert "raised in close" in caplog.text
