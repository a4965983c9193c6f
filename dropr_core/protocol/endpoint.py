"""The answering side of the protocol, without I/O of its own: request → answer over two half stores.

Owns who may ask, and what each verb does. It is given an outbox and an inbox and touches nothing
else; long polls are answered with `Wait`, and `server.py` asks again when the notifier notifies.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import attrs
import msgspec

from dropr_core.bodies.store import Bodies
from dropr_core.contracts.storage import Inbox, Outbox
from dropr_core.contracts.transport import Caller
from dropr_core.errors import BadFrame, Closed, Refused, StoreError
from dropr_core.model import topics
from dropr_core.model.facts import FactsOf
from dropr_core.model.limits import (
    MAX_BATCH_COUNT,
    MAX_CONTENT_TYPE,
    MAX_LANES,
    MAX_RECEIPTS,
    MAX_RESULT,
    MAX_SEQUENCE,
    MAX_WAIT,
    clip,
    max_request,
)
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import START, MessageId, StoreId
from dropr_core.protocol import messages as wire
from dropr_core.protocol.access import Access, Joins, NoJoins, authenticate
from dropr_core.protocol.batches import accept_push, build_fetch_response, taken_of
from dropr_core.protocol.body_requests import BodyRequests
from dropr_core.protocol.frames import (
    ANSWER,
    HEAD_SIZE,
    OK,
    FrameHeader,
    Head,
    open_body,
    seal,
)
from dropr_core.protocol.replay_guard import ReplayGuard
from dropr_core.protocol.tracing import build_trace


@attrs.frozen
class Limits:
    """What this node takes at once."""

    batch_bytes: int = 4 * 1024 * 1024
    batch_count: int = 10_000
    max_body: int | None = None

    @property
    def max_request(self) -> int:
        """Bytes of the largest request body."""
        return max_request(self.batch_bytes)


@attrs.frozen
class Request:
    """An authenticated request."""

    peer: str
    verb: str
    body: memoryview = attrs.field(repr=False)
    header: FrameHeader = attrs.field(repr=False)
    mac: bytes = attrs.field(repr=False)
    key: bytes = attrs.field(repr=False)
    tail: memoryview = attrs.field(repr=False)
    """Not checked: the body vouches for it."""


@attrs.frozen
class Wait:
    """Nothing to say yet: ask again when one of the topics notifies, or after ``seconds``."""

    topics: tuple[str, ...]
    seconds: float


@attrs.frozen
class Round:
    """Which time a request is looked at."""

    first: bool = True
    """False: it waited, and what it says of its asker may be old news."""
    final: bool = False
    """No more waiting."""


def _quiet(_topic: str) -> None:
    """Nobody to notify for."""


class Endpoint:
    """Answers requests for one node."""

    head_size = HEAD_SIZE

    def __init__(
        self,
        node: str,
        node_id: bytes,
        access: Mapping[str, Access],
        outbox: Outbox,
        inbox: Inbox,
        *,
        limits: Limits | None = None,
        bodies: Bodies | None = None,
        on_reset: str = "resend",
        notify: Callable[[str], None] = _quiet,
        event: Callable[[str, Mapping[str, object]], None] = lambda _name, _details: None,
        store_said: Callable[[str, str, StoreError | None], None] = lambda _peer, _verb, _error: None,
        joins: Joins | None = None,
    ) -> None:
        """``store_said``: told after each request whether the store could do what its verb wants for the peer;
        ``joins``: who was invited to become a peer.
        """
        self._node, self._node_id = node, node_id
        self.access = access
        self._outbox, self._inbox = outbox, inbox
        self.limits = limits or Limits()
        self._bodies = bodies
        self._carry = BodyRequests(outbox, bodies, lambda: self.limits.max_body, event)
        self._on_reset = on_reset
        self._joins: Joins = joins or NoJoins()
        self._notify, self._event, self._store_said = notify, event, store_said
        self._sessions = ReplayGuard()
        self._begun: set[str] = set()
        """Peers that greeted and have not fetched since: what they have may be less than before."""
        self._verbs: Mapping[str, Callable[[Request, Round], msgspec.Struct | Wait]] = {
            wire.HELLO: self._hello,
            wire.PUSH: self._push,
            wire.HEADS: self._heads,
            wire.RECEIPTS: self._receipts,
            wire.FETCH: self._fetch,
            wire.HAVE: self._have,
            wire.CHUNK: self._chunk,
            wire.READ: self._read,
            wire.TRACE: self._trace,
            wire.JOIN: self._join,
        }

    # ── who asks ─────────────────────────────────────────────────────────────────────────────────

    def admit(self, data: bytes, caller: Caller) -> int:
        """Judge a request by its first bytes; its full length. Raises Refused (contracts/transport.py)."""
        head, _key = self._authenticate(data, caller)
        return head.length

    def open(self, frame: bytes | memoryview, caller: Caller) -> Request:
        """Authenticate a whole request and use up its counter. Raises Refused."""
        head, key = self._authenticate(bytes(frame[:HEAD_SIZE]), caller)
        try:
            body, tail = open_body(head, frame)
        except BadFrame as error:
            raise Refused("bad_frame", str(error)) from None
        return Request(head.header.sender, head.header.verb, body, head.header, head.mac, key, tail)

    def _authenticate(self, data: bytes, caller: Caller) -> tuple[Head, bytes]:
        def refused(name: str) -> None:
            self._event("refused_caller", {"address": caller.address, "claims": name[:64]})

        return authenticate(data, self._node, self.access, self._joins, self.limits.max_request, refused)

    # ── what is asked ────────────────────────────────────────────────────────────────────────────

    def answer(self, request: Request, *, first: bool = True, final: bool = False) -> bytes | Wait:
        """The signed answer, or Wait. ``first``: use up the counter; ``final``: no more waiting.

        Raises Refused, unsigned, if the asker may not ask any more: the configuration was read again while it waited.
        """
        access = self.access.get(request.peer)
        joins = request.verb == wire.JOIN
        if not joins and (access is None or request.key not in access.valid_keys):
            raise Refused("unknown_peer", "this pair of nodes, or its key, is not known here any more")
        try:
            if first and request.verb != wire.HELLO and not joins:
                self._sessions.use(request.peer, request.header.session, request.header.counter)
            verb = self._verbs.get(request.verb)
            if verb is None:
                raise Refused("unsupported", f"verb {request.verb[:40]!r} is not known to this node")
            if request.tail and request.verb != wire.CHUNK:
                raise BadFrame(f"{request.verb}: a tail that nothing vouches for")
            value = verb(request, Round(first, final))
        except Refused as refusal:
            return self._seal(request, clip(refusal.reason).encode(), refusal.code)
        except BadFrame as error:
            return self._seal(request, clip(error).encode(), "bad_frame")
        except Closed:
            raise
        except StoreError as error:
            # The store is in trouble: the peer shall keep everything and come back.
            self._event("store_trouble", {"error": str(error)})
            self._store_said(request.peer, request.verb, error)
            return self._seal(request, type(error).__name__.encode(), "busy")
        self._store_said(request.peer, request.verb, None)
        return value if isinstance(value, Wait) else self._seal(request, wire.encode(value), OK)

    def _seal(self, request: Request, body: bytes, status: str) -> bytes:
        header = FrameHeader(
            sender=self._node,
            receiver=request.peer,
            request=request.header.request,
            verb=request.verb,
            digest=b"",
            proof=request.mac,
            status=status,
        )
        return seal(ANSWER, header, body, request.key)[0]

    # ── verbs ────────────────────────────────────────────────────────────────────────────────────

    def _hello(self, request: Request, _round: Round) -> wire.Welcome:
        hello = wire.decode(request.body, wire.Hello)
        if hello.version != wire.VERSION:
            raise Refused("version", f"protocol version {hello.version}: this node speaks {wire.VERSION}")
        self._begun.add(request.peer)
        return wire.Welcome(
            version=wire.VERSION,
            node=self._node_id,
            session=self._sessions.open(request.peer),
            inbox=self._inbox.store_id,
            batch_bytes=self.limits.batch_bytes,
            batch_count=self.limits.batch_count,
            max_body=self.limits.max_body or 2**63 - 1,
        )

    def _push(self, request: Request, _round: Round) -> wire.Pushed:
        push = wire.decode(request.body, wire.Push)
        _check_count(len(push.lanes), MAX_LANES, "lanes in one push")
        _check_count(sum(len(part.envelopes) for part in push.lanes), MAX_BATCH_COUNT, "messages in one push")
        verdicts, channels = accept_push(
            self._inbox, request.peer, StoreId(push.store), push.lanes, partial(self._allows, request.peer),
            self.limits.max_body, self._bodies,
        )  # fmt: skip
        for channel in channels:
            self._notify(topics.inbox(channel))
        if taken := taken_of([part.envelopes for part in push.lanes], verdicts):
            told = {"side": "inbox", "peer": request.peer, "count": len(taken), "messages": FactsOf(taken)}
            self._event("batch_accepted", told)
        receipts = None
        if push.receipts is not None:
            receipts = self._page(request.peer, push.receipts)
        return wire.Pushed(verdicts, receipts if receipts and receipts.rows else None)

    def _heads(self, request: Request, _round: Round) -> wire.HeadsAnswer:
        ask = wire.decode(request.body, wire.AskHeads)
        _check_count(len(ask.lanes), MAX_LANES, "lanes in one probe")
        known = self._inbox.heads(request.peer, StoreId(ask.store))
        at = {(source.channel, source.priority): head for source, head in known.items()}
        return wire.HeadsAnswer([at.get(lane, START) for lane in ask.lanes])

    def _receipts(self, request: Request, this: Round) -> wire.Outcomes | Wait:
        ask = wire.decode(request.body, wire.AskReceipts)
        page = self._page(request.peer, ask.cursor)
        if page.rows or this.final or ask.wait <= 0:
            return page
        return Wait((topics.outcomes(request.peer),), min(ask.wait, MAX_WAIT))

    def _fetch(self, request: Request, this: Round) -> wire.Fetched | Wait:
        ask = wire.decode(request.body, wire.Fetch)
        parts: list[wire.LanePart] = []
        unknown: list[tuple[str, int]] = []
        if ask.outcomes is not None:
            # It only tells: no mail, for another request of the same peer waits for that.
            _check_count(len(ask.outcomes.rows), MAX_RECEIPTS, "receipts in one page")
            rows = to_outcomes(ask.outcomes.rows, partial(self._bad_receipt, request.peer))
            if self._outbox.receipts(request.peer, StoreId(ask.outcomes.log), rows, ask.outcomes.upto):
                self._notify(topics.RECEIPTS)
        else:
            doubt = this.first and request.peer in self._begun
            _check_count(len(ask.heads), MAX_LANES, "heads in one fetch")
            _check_count(len(ask.without), MAX_LANES, "lanes left out in one fetch")
            _check_count(len(ask.rejected), MAX_RECEIPTS, "rejections in one fetch")
            mail = build_fetch_response(
                self._outbox, request.peer, ask.heads, self.limits.batch_count, self.limits.batch_bytes, self._event,
                self._on_reset, fresh=this.first, doubt=doubt, without=ask.without, partial=ask.partial,
                rejected=ask.rejected,
            )  # fmt: skip
            if doubt and not mail.stale:
                self._begun.discard(request.peer)
            if mail.settled:
                self._notify(topics.RECEIPTS)
            parts, unknown = mail.parts, list(mail.unknown)
            if not parts and not unknown and not mail.stale and not this.final and ask.wait > 0:
                return Wait((topics.mail(request.peer),), min(ask.wait, MAX_WAIT))
        state = self._outbox.peers().get(request.peer)
        cursor = wire.Cursor(state.log or b"" if state else b"", state.cursor if state else 0)
        return wire.Fetched(self._outbox.store_id, parts, cursor, unknown)

    def _bad_receipt(self, peer: str, error: str) -> None:
        self._event("bad_receipt", {"peer": peer, "error": error})

    def _have(self, request: Request, _round: Round) -> wire.Had:
        return self._carry.have(request.peer, self._for_writer(request, wire.decode(request.body, wire.Have)))

    def _chunk(self, request: Request, _round: Round) -> wire.Had:
        chunk = wire.decode(request.body, wire.Chunk)
        self._for_writer(request, chunk.body)
        return self._carry.chunk(request.peer, chunk, request.tail)

    def _allows(self, peer: str, channel: str) -> bool:
        """Whether the peer may write into the channel now; the configuration may be read again at any time."""
        access = self.access.get(peer)
        return access is not None and access.allows(channel)

    def _for_writer(self, request: Request, body: wire.Have) -> wire.Have:
        if not self._allows(request.peer, body.channel):
            raise Refused("not_allowed", f"this peer may not write to channel {body.channel[:200]}")
        return body

    def _read(self, request: Request, _round: Round) -> wire.Piece:
        return self._carry.read(request.peer, wire.decode(request.body, wire.Read))

    def _trace(self, request: Request, _round: Round) -> wire.Traced:
        ask = wire.decode(request.body, wire.AskTrace)
        return build_trace(self._outbox, self._inbox, request.peer, MessageId(ask.id))

    def _join(self, request: Request, _round: Round) -> wire.Joined:
        join = wire.decode(request.body, wire.Join)
        return self._joins.join(request.header.session, request.peer, join)

    def close(self) -> None:
        """Let go of files that are being written; safe twice."""
        self._carry.close()

    def _page(self, peer: str, cursor: wire.Cursor) -> wire.Outcomes:
        log = StoreId(cursor.log) if cursor.log else None
        own, rows = self._inbox.outcomes(peer, log, cursor.after, MAX_RECEIPTS)
        start = cursor.after if log == own else 0
        return wire.Outcomes(own, rows[-1].number if rows else start, [from_outcome(row) for row in rows])


def _check_count(count: int, most: int, what: str) -> None:
    if count > most:
        raise Refused("too_big", f"{count} {what}: the limit is {most}")


def from_outcome(outcome: Outcome) -> wire.OutcomeRow:
    """An outcome as it travels."""
    return wire.OutcomeRow(
        outcome.number, outcome.id, outcome.state.value, clip(outcome.reason), outcome.result, outcome.content_type
    )


def to_outcome(row: wire.OutcomeRow) -> Outcome:
    """An outcome as it came; raises BadFrame for one that no receiver may claim.

    What is only too long is cut: the work is done, whatever is said of it.
    """
    if row.state not in (State.PROCESSED, State.FAILED, State.EXPIRED):
        raise BadFrame(f"state {row.state[:20]!r} is none that a receiver may claim")
    if not 0 < row.number <= MAX_SEQUENCE or len(row.id) != 16:
        raise BadFrame(f"number {row.number}, and an id of {len(row.id)} bytes")
    result, reason = row.result, row.reason
    if result is not None and len(result) > MAX_RESULT:
        result, reason = None, f"{reason} (its result of {len(row.result or b'')} bytes is over the limit)"
    return Outcome(row.number, MessageId(row.id), State(row.state), clip(reason), result,
                   clip(row.content_type, MAX_CONTENT_TYPE))  # fmt: skip


def to_outcomes(rows: Sequence[wire.OutcomeRow], wrong: Callable[[str], None]) -> list[Outcome]:
    """A page as it came. A row that no receiver may claim is told to ``wrong`` and left out: the others count."""
    page = []
    for row in rows:
        try:
            page.append(to_outcome(row))
        except BadFrame as error:
            wrong(f"receipt ignored: {error}")
    return page
