"""Answers to many peers that fetch at once are bounded together, and slow readers stop nobody."""

import gc
import itertools
import logging
import threading
from concurrent.futures import Future

import msgspec
import pytest
from support.nodes import eventually
from support.one_node import open_node
from support.world import KEY

from dropr_core.contracts.transport import Caller, Connection
from dropr_core.delivery.peer_client import PeerClient
from dropr_core.protocol import greeting
from dropr_core.protocol import messages as wire
from dropr_core.protocol.access import Access
from dropr_core.protocol.answer_budget import SMALL, AnswerBudget
from dropr_core.protocol.endpoint import Endpoint
from dropr_core.serving.dispatcher import Dispatcher

LOG = logging.getLogger("test.answers")
PEERS = [f"n{number}" for number in range(30)]
ROOM = 1 << 20
BODY = 5_000


class Slow(Connection):
    """A transport whose caller reads nothing until the test says so: it keeps the host's futures."""

    def __init__(self, dispatcher):
        self.dispatcher, self.kept, self.sizes = dispatcher, [], []

    def ask(self, request, *, idle):
        """Hand it to the dispatcher; the asker has its answer, and the bytes still count."""
        given = self.dispatcher.answer(request, Caller("test"))
        self.kept.append(given)
        answer = Future()
        data = given.result(30)
        self.sizes.append(len(data))
        answer.set_result(data)
        return answer

    def close(self):
        """Nothing to close."""


@pytest.fixture
def site(tmp_path):
    """A node with some 400 kB for each of many peers that only fetch, its dispatcher, and a small room for answers."""
    peers = {name: {"mode": "pull", "key": KEY.decode()} for name in PEERS}
    with open_node(tmp_path, peers=peers, groups={}, limits={"min_free": 0}) as node:
        with node.batch() as batch:
            for name, number in itertools.product(PEERS, range(80)):
                batch.send(b"%03d" % number + bytes(BODY), to=name, channel="mail")
        runtime = node.runtime
        endpoint = Endpoint("shop", b"n" * 16, {name: Access((KEY,)) for name in PEERS}, runtime.outbox, runtime.inbox,
                            answers=AnswerBudget(ROOM))  # fmt: skip
        dispatcher = Dispatcher(endpoint, runtime.notifier, runtime.clock, lambda _peer: None, LOG)
        yield dispatcher
        dispatcher.close()


def client(dispatcher, name):
    """A peer that fetches, and has said hello."""
    line, posts = Slow(dispatcher), []
    talk = PeerClient(name, "shop", [KEY], lambda: line, posts.append, 30.0)
    talk.session = ask(talk, posts, wire.HELLO, greeting.hello(b"i" * 16), wire.Welcome).session
    return talk, line, posts


def ask(talk, posts, verb, value, shape):
    """One question and its answer."""
    got = []
    talk.ask(verb, value, shape, got.append)
    while posts:
        posts.pop(0)()
    if isinstance(got[0], Exception):
        raise got[0]
    return got[0]


def fetch(talk, posts):
    """The bodies of one answer to a fetch."""
    answer = ask(talk, posts, wire.FETCH, wire.Fetch([], None, 0.0), wire.Fetched)
    return sum(len(part.envelopes) for part in answer.lanes)


def test_many_that_fetch_at_once_get_less_each_and_all_of_it_is_bounded(site):
    """The first ones get a quarter of what is free, the others little; with nobody reading it is a bounded sum."""
    clients = [client(site, name) for name in PEERS]
    counts = [fetch(talk, posts) for talk, _, posts in clients]
    assert counts[0] > counts[3] > counts[-1] >= 1
    assert sum(sum(line.sizes) for _, line, _ in clients) <= ROOM + len(PEERS) * (SMALL + BODY)
    assert site.endpoint.answers.under_way > ROOM // 2
    for _, line, _ in clients:
        line.kept.clear()
    gc.collect()
    eventually(lambda: site.endpoint.answers.under_way == 0, what="all that was read counts no more")
    assert fetch(clients[-1][0], clients[-1][2]) == counts[0], "and then there is much for the next one"


def test_the_room_is_given_back_whatever_thread_lets_go():
    """Counting and letting go from many threads at once loses no byte."""
    budget = AnswerBudget(ROOM)

    def work(name):
        for size in range(5000, 6000):
            holder = Future()
            budget.count(holder, name, size)
            budget.room(name)
            del holder

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b", "c", "a")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.under_way == 0
    assert budget.room("a") == ROOM // 4


def test_a_peer_that_has_its_share_waits_while_there_is_none():
    """Where the room is full a peer without an answer under way gets a small one, others nothing more."""
    budget, holder = AnswerBudget(ROOM), Future()
    budget.count(holder, "greedy", ROOM)
    assert (budget.room("greedy"), budget.room("other")) == (0, SMALL)


def test_pieces_of_bodies_and_receipts_keep_to_the_room_as_well(site, monkeypatch):
    """A piece is cut to whole leaves, or refused to who has some; a page of receipts gets what is left."""
    talk, _, posts = client(site, "n0")
    asked = {}
    monkeypatch.setattr(site.endpoint._carry, "read", lambda _peer, ask: asked.update(read=ask) or wire.Piece(b"x"))
    monkeypatch.setattr(site.endpoint._inbox, "outcomes",
                        lambda *words: asked.update(page=words) or (b"l" * 8, []))  # fmt: skip
    have = wire.Have(b"i" * 16, "mail", 1 << 30, b"d" * 32)
    holder = Future()
    site.endpoint.answers.count(holder, "another", ROOM)
    ask(talk, posts, wire.READ, wire.Read(have, 0, 1 << 20), msgspec.Raw)
    ask(talk, posts, wire.RECEIPTS, wire.AskReceipts(wire.Cursor(b"", 0), 0.0), msgspec.Raw)
    assert (asked["read"].count, asked["page"][-1]) == (256 << 10, SMALL)
    mine = Future()
    site.endpoint.answers.count(mine, "n0", 5000)
    with pytest.raises(Exception, match="busy"):
        ask(talk, posts, wire.READ, wire.Read(have, 0, 1 << 20), msgspec.Raw)
