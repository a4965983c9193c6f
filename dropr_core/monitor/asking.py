"""Asks peers what they know of one message, over the same signed protocol as everything else.

Owns the conversation: all peers at once, each greeted and asked, and none waited for longer than the others. Needs no
daemon. A peer tells only of messages between the two nodes (protocol/tracing.py). Must not know how a story is shown.
"""

import queue
import time
from collections.abc import Callable, Iterable

from dropr_core.api.runtime import Runtime
from dropr_core.delivery.peer_client import PeerClient
from dropr_core.delivery.transports import Transports
from dropr_core.errors import DroprError, Refused
from dropr_core.model.limits import clip
from dropr_core.model.names import MessageId, format_id
from dropr_core.monitor.snapshot import Part
from dropr_core.monitor.story import Queued, Sent, Story
from dropr_core.protocol import greeting
from dropr_core.protocol import messages as wire
from dropr_core.protocol.tracing import MOST as ROWS
from dropr_core.protocol.tracing import last_lines

MOST = 64
"""Peers that are asked at most."""
PATIENCE = 5.0
"""Seconds for all of them together."""
SETTLED = frozenset({"done", "buried", "expired"})
OVER = frozenset({"processed", "failed", "expired", "cancelled", "dead"})


class Told(Part, frozen=True, kw_only=True):
    """What one peer told, or why it told nothing."""

    peer: str
    problem: str = ""
    """Why nothing is known from it, and what to do; empty: it answered."""
    deliveries: tuple[Sent, ...] = ()
    """What it sends to this node."""
    inbox: tuple[Queued, ...] = ()
    """What it got from this node."""

    @property
    def knows(self) -> bool:
        """Whether it knows the message."""
        return bool(self.deliveries or self.inbox)


def ask_peers(node: Runtime, identity: MessageId, peers: Iterable[str], patience: float = PATIENCE) -> list[Told]:
    """What each of the peers knows, in the order given; within ``patience`` seconds, whoever is silent."""
    found: dict[str, Told] = {}
    posts = queue.SimpleQueue[Callable[[], None]]()
    names = list(dict.fromkeys(peers))
    transports = Transports(node.config.transports, node.context(node.log), node.config.where)
    clients: list[PeerClient] = []
    try:
        for name in names[:MOST]:
            problem = _unasked(node, name)
            if problem:
                found[name] = Told(peer=name, problem=problem)
                continue
            _Question(node, transports, name, identity, patience, posts.put, found.__setitem__, clients).start()
        _wait(posts, lambda: len(found) >= len(names[:MOST]), time.monotonic() + patience)
    finally:
        for client in clients:
            client.close()
        transports.close()
    silent = f"no answer within {patience:g} s; 'dropr status' says how it is; there: dropr show {format_id(identity)}"
    for name in names[:MOST]:
        found.setdefault(name, Told(peer=name, problem=silent))
    for name in names[MOST:]:
        found[name] = Told(peer=name, problem=f"not asked: {MOST} peers are the most for one question")
    return [found[name] for name in names]


def whom_to_ask(story: Story, configured: list[str]) -> list[str]:
    """The peers that may know something; of a message that is not known here, all of them."""
    if not story.known:
        return configured
    met = [one.peer for one in story.deliveries] + [one.sender for one in story.inbox]
    return [name for name in dict.fromkeys(met) if name != story.node]


def _unasked(node: Runtime, name: str) -> str:
    """Why a peer cannot be asked; empty: it can."""
    peer = node.config.peers.get(name)
    if peer is None:
        return "not asked: it is no longer in the configuration"
    if peer.url is None:
        return "not asked: it only calls, and has no address here; ask on that machine"
    return ""


def _wait(posts: "queue.SimpleQueue[Callable[[], None]]", done: Callable[[], bool], until: float) -> None:
    while not done() and (left := until - time.monotonic()) > 0:
        try:
            posts.get(timeout=left)()
        except queue.Empty:
            return


class _Question:
    """One peer: greet, then ask; with two keys, each is tried."""

    def __init__(
        self, node: Runtime, transports: Transports, name: str, identity: MessageId, patience: float,
        post: Callable[[Callable[[], None]], None], tell: Callable[[str, Told], None], clients: list[PeerClient],
    ) -> None:  # fmt: skip
        peer = node.config.peers[name]
        url = peer.url or ""
        self._node, self._name, self._identity, self._tell = node, name, identity, tell
        self._tries = max(1, len(peer.keys))
        self._client = PeerClient(
            node.name, name, peer.keys, lambda: transports.for_url(url).connect(url), post, patience
        )
        clients.append(self._client)

    def start(self) -> None:
        """Greet it."""
        self._tries -= 1
        self._client.ask(wire.HELLO, greeting.hello(self._node.node_id), wire.Welcome, self._greeted)

    def _greeted(self, answer: wire.Welcome | Exception) -> None:
        if isinstance(answer, Refused) and self._tries > 0:
            self.start()  # the client goes on with the other key
        elif isinstance(answer, Exception):
            self._failed(answer)
        else:
            self._client.session = answer.session
            self._client.ask(wire.TRACE, wire.AskTrace(self._identity), wire.Traced, self._traced)

    def _traced(self, answer: wire.Traced | Exception) -> None:
        if isinstance(answer, Exception):
            self._failed(answer)
            return
        wall = self._node.clock.wall()
        self._tell(self._name, Told(
            peer=self._name,
            deliveries=tuple(_sent(self._node.name, one, wall) for one in answer.deliveries[:ROWS]),
            inbox=tuple(_queued(self._node.name, one, wall) for one in answer.jobs[:ROWS]),
        ))  # fmt: skip

    def _failed(self, error: Exception) -> None:
        problem = str(error)
        if isinstance(error, Refused) and error.code == "unsupported":
            problem = (
                "it runs an older version of dropr, which cannot be asked for a message; ask on that machine: "
                f"dropr show {format_id(self._identity)}"
            )
        elif not isinstance(error, DroprError):
            problem = f"{type(error).__name__}: {error}"
        self._tell(self._name, Told(peer=self._name, problem=problem))


def _sent(here: str, one: wire.TracedDelivery, wall: float) -> Sent:
    over = one.state in OVER or (one.state == "accepted" and not one.receipt)
    return Sent(
        peer=here, channel=one.channel, priority=one.priority, state=one.state, sequence=one.sequence,
        sent_at=None if over else wall - one.age, ended_at=wall - one.age if over else None, reason=clip(one.reason),
        receipt=one.receipt, possible_duplicate=one.possible_duplicate,
    )  # fmt: skip


def _queued(here: str, one: wire.TracedJob, wall: float) -> Queued:
    ended = one.state in SETTLED
    return Queued(
        sender=here, channel=one.channel, priority=one.priority, state=one.state,
        arrived_at=None if ended else wall - one.age, ended_at=wall - one.age if ended else None,
        attempts=one.attempts, errors=tuple(last_lines(one.errors).splitlines()), consumer=clip(one.consumer),
        due_in=one.due_in, possible_duplicate=one.possible_duplicate,
    )  # fmt: skip
