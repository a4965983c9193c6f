"""A listener holds a bounded number of bytes of long requests, and of answers that are not read, over all callers."""

import threading
import time
from concurrent.futures import Future

import pytest
import zmq
from dropr_transport_zmq import ways
from dropr_transport_zmq.frames import CHUNK, FIRST_WINDOW, OPENING, WINDOW, Kind, pack, unpack

from dropr_core.testing.echo import MIB, request

WAIT = 30.0


class Holding:
    """An answerer that keeps every request until the test lets them go."""

    head_size = 64

    def __init__(self):
        self.lock, self.held, self.most, self.waiting = threading.Lock(), 0, 0, []
        self.came, self.open = threading.Semaphore(0), False

    def admit(self, head, _caller):
        """Every request says its length in its beginning."""
        return int.from_bytes(head[:8], "big")

    def answer(self, asked, _caller):
        """Answered when the test says so."""
        answered = Future()
        with self.lock:
            self.held += len(asked)
            self.most = max(self.most, self.held)
            self.waiting.append((len(asked), answered))
        self.came.release()
        if self.open:
            self.let_go()
        return answered

    def let_go(self):
        """Answer all that is here, and all that comes."""
        self.open = True
        with self.lock:
            waiting, self.waiting = self.waiting, []
        for size, answered in waiting:
            with self.lock:
                self.held -= size
            answered.set_result(b"done")


def sized(size):
    """A request that says its length."""
    return size.to_bytes(8, "big") + bytes(size - 8)


def pieces(dealer, number, body, upto):
    """Send the beginning of a request without waiting for grants."""
    for sent in range(0, upto, CHUNK):
        kind, value = (Kind.MORE, sent) if sent else (Kind.ASK, len(body))
        dealer.send_multipart([pack(kind, number, value), body[sent : min(upto, sent + CHUNK)]])


def dial(raw, door):
    """A bare caller."""
    dealer = raw(zmq.DEALER)
    dealer.connect(door.url.removeprefix("zmq+"))
    return dealer


def soon(holds):
    """Whether it is so before long."""
    return any(holds() or time.sleep(0.005) for _ in range(6000))


def heard(dealer, kind):
    """The number of the next message of this kind."""
    while True:
        head = unpack(dealer.recv_multipart()[0])
        if head.kind == kind:
            return head


def test_a_herd_of_long_requests_is_read_a_few_at_a_time(transport):
    """Of ten requests of 1 MiB a listener with room for three has three, and answers all ten."""
    answerer = Holding()
    door = transport(curve=False, max_held=3 * MIB).listen("zmq+tcp://127.0.0.1:0", answerer)
    asked = [transport(curve=False).connect(door.url).ask(sized(MIB), idle=WAIT) for _ in range(10)]
    for _ in range(3):
        assert answerer.came.acquire(timeout=WAIT)
    answerer.let_go()
    assert [one.result(WAIT) for one in asked] == [b"done"] * 10
    assert answerer.most <= 3 * MIB


def test_a_caller_that_stalls_in_a_long_request_holds_up_nobody(transport, raw, monkeypatch):
    """A slow line has begun a request as large as the room: another one's is read all the same, after a while."""
    answerer = Holding()
    answerer.let_go()
    opened = transport(curve=False, max_held=MIB)
    door = opened.listen("zmq+tcp://127.0.0.1:0", answerer)
    monkeypatch.setattr(door.answering._room, "_reading", 0.05)
    slow = dial(raw, door)
    pieces(slow, 1, sized(MIB), CHUNK)
    heard(slow, Kind.GRANT)
    assert transport(curve=False).connect(door.url).ask(sized(MIB), idle=WAIT).result(WAIT) == b"done"


def test_callers_that_wait_for_no_grant_are_refused_when_the_room_is_full_twice(transport, raw):
    """Whoever sends megabytes unasked is counted and told to come back; nothing of it is kept."""
    answerer = Holding()
    door = transport(curve=False, max_held=MIB).listen("zmq+tcp://127.0.0.1:0", answerer)
    first = transport(curve=False).connect(door.url).ask(sized(MIB), idle=WAIT)
    assert answerer.came.acquire(timeout=WAIT)
    caller = dial(raw, door)
    for number in range(1, 7):
        pieces(caller, number, sized(MIB), MIB - CHUNK)
    refused = {heard(caller, Kind.REFUSED).request for _ in range(5)}
    assert len(refused) == 5
    assert door.answering._room.free >= -MIB
    answerer.let_go()
    assert first.result(WAIT) == b"done"


def test_a_request_that_waits_for_room_is_not_taken_for_a_stalled_one(transport):
    """Its sender may not send, so it is given the time of the room and not that of a caller that dawdles."""
    answerer = Holding()
    door = transport(curve=False, max_held=MIB, body_idle=0.1).listen("zmq+tcp://127.0.0.1:0", answerer)
    connection = transport(curve=False).connect(door.url)
    first = connection.ask(sized(MIB), idle=WAIT)
    assert answerer.came.acquire(timeout=WAIT)
    second = connection.ask(sized(MIB), idle=WAIT)
    with pytest.raises(TimeoutError):
        second.result(0.5)
    answerer.let_go()
    assert [first.result(WAIT), second.result(WAIT)] == [b"done", b"done"]


def test_few_callers_may_begin_with_the_full_window_and_a_quiet_one_gives_it_up():
    """What may come unasked has room: the word is given to few, and taken from who does not use it."""
    openings = ways.Openings(2 * 2 * ways.REQUESTS * WINDOW)
    for number in range(3):
        openings.use(b"%d" % number, 0.0)
    assert [openings.window(b"%d" % number) for number in range(3)] == [WINDOW, WINDOW, FIRST_WINDOW]
    openings.use(b"0", ways.QUIET)
    told, other = openings.use(b"2", ways.QUIET)
    assert told.next()[0] == pack(Kind.GRANT, OPENING, WINDOW)
    assert other == (b"1", pack(Kind.GRANT, OPENING, FIRST_WINDOW), b"")
    assert [openings.window(b"%d" % number) for number in range(3)] == [WINDOW, FIRST_WINDOW, WINDOW]
    assert ways.Openings(MIB).use(b"any", 0.0) == (None, None)


@pytest.mark.parametrize("how", ["taken", "asks again", "never"])
def test_an_answer_counts_until_its_caller_has_it(transport, raw, echo, monkeypatch, how):
    """The host's future is kept while ZeroMQ may hold the bytes: until TAKEN; of older callers, the next request."""
    monkeypatch.setattr("dropr_transport_zmq.answering.UNREAD", 0.2)
    monkeypatch.setattr(ways, "UNREAD", 0.2 if how == "never" else 3600.0)
    door = transport(curve=False).listen("zmq+tcp://127.0.0.1:0", echo)
    caller = dial(raw, door)
    size = 2 * CHUNK
    pieces(caller, 1, request(size), size)
    heard(caller, Kind.MORE)
    if how != "never":
        assert soon(lambda: [list(way.unread) for way in list(door.answering._ways.values())] == [[1]])
    if how == "taken":
        caller.send_multipart([pack(Kind.TAKEN, 1, 0), b""])
    elif how == "asks again":
        pieces(caller, 2, request(20), 20)
    assert soon(lambda: not door.answering._ways)


def test_an_asker_says_that_it_has_a_long_answer(transport, echo):
    """So a listener knows at once that its bytes are gone, and has nothing left of the caller."""
    door = transport(curve=False).listen("zmq+tcp://127.0.0.1:0", echo)
    assert transport(curve=False).connect(door.url).ask(request(MIB), idle=WAIT).result(WAIT) == request(MIB)
    assert soon(lambda: not door.answering._ways)
