"""The answering side of the protocol, without I/O of its own: request → answer over two half stores.

Owns who may ask, and what each verb does. It is given an outbox and an inbox and touches nothing
else; long polls are answered with `Wait`, and `server.py` asks again when the notifier notifies.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import attrs
import msgspec

from dropr_core.contracts.bodies import Bodies
from dropr_core.contracts.storage import Inbox, Outbox
from dropr_core.contracts.transport import Caller
from dropr_core.errors import BadFrame, Closed, Refused, StoreError
from dropr_core.model import topics
from dropr_core.model.chunk_digest import LEAF
from dropr_core.model.facts import FactsOf
from dropr_core.model.limits import (
    MAX_BATCH_COUNT,
    MAX_LANES,
    MAX_RECEIPTS,
    MAX_WAIT,
    RECEIPTS_BYTES,
    clip,
    max_request,
)
from dropr_core.model.names import START, MessageId, StoreId
from dropr_core.protocol import messages as wire
from dropr_core.protocol.access import Access, Joins, NoJoins, authenticate
from dropr_core.protocol.answer_budget import SMALL, AnswerBudget
from dropr_core.protocol.batches import TOO_NEW, accept_push, build_fetch_response, taken_of
from dropr_core.protocol.body_requests import BodyRequests
from dropr_core.protocol.conversations import Begun, BegunInMemory, Conversation, Conversations, NodeSecret
from dropr_core.protocol.frames import ANSWER, HEAD_SIZE, OK, FrameHeader, Head, open_body, seal
from dropr_core.protocol.greeting import agree
from dropr_core.protocol.outcomes import from_outcome, to_outcomes
from dropr_core.protocol.outside import OutsideSearches
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
    conversation: Conversation | None = None
    """The one that it belongs to, if it is looked at for the first time and its verb has one."""


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
        secret: NodeSecret | None = None,
        begun: Begun | None = None,
        answers: AnswerBudget | None = None,
    ) -> None:
        """``store_said``: told after each request whether the store could do what its verb wants for the peer;
        ``joins``: who was invited to become a peer. ``secret``, ``begun``: what all servers of the node know of
        conversations; without them this is the only server. ``answers``: the room of all who answer in this process.
        """
        self._node, self._node_id = node, node_id
        self.access = access
        self._outbox, self._inbox = outbox, inbox
        self.limits = limits or Limits()
        self._bodies = bodies
        self.answers = answers or AnswerBudget()
        self._carry = BodyRequests(outbox, bodies, lambda: self.limits.max_body, event)
        self._on_reset = on_reset
        self._joins: Joins = joins or NoJoins()
        self._notify, self._event, self._store_said = notify, event, store_said
        self._outside = OutsideSearches(outbox, on_reset=on_reset, event=event)
        self._versions: dict[tuple[str, str], str] = {}
        """(peer, channel) → what cannot be done for want of a common version; no channel: nothing at all."""
        self._admitted: tuple[bytes, Mapping[str, Access], tuple[Head, bytes]] | None = None
        """What was judged last, by which access, and the judgement: `open` most often asks for the same at once."""
        self._conversations = Conversations(
            node, secret or NodeSecret.of_this_process(time.monotonic), lambda: inbox.store_id, lambda: outbox.store_id,
            begun or BegunInMemory(),
        )  # fmt: skip
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
        access = self.access  # before: it may be another one at any moment
        head, key = self._authenticate(data, caller)
        if head.header.verb != wire.JOIN:  # an invitation may be revoked
            self._admitted = data, access, (head, key)
        return head.length

    def open(self, frame: bytes | memoryview, caller: Caller) -> Request:
        """Authenticate a whole request and use up its counter. Raises Refused."""
        data, last = bytes(frame[:HEAD_SIZE]), self._admitted
        if last is not None and last[0] == data and last[1] is self.access:
            head, key = last[2]
        else:
            head, key = self._authenticate(data, caller)
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
            conversation = None
            if first and request.verb != wire.HELLO and not joins:
                use, header = self._conversations.use, request.header
                conversation = use(request.peer, header.session, header.counter, pushes=request.verb == wire.PUSH)
            verb = self._verbs.get(request.verb)
            if verb is None:
                raise Refused("unsupported", f"verb {request.verb[:40]!r} is not known to this node")
            if request.tail and request.verb != wire.CHUNK:
                raise BadFrame(f"{request.verb}: a tail that nothing vouches for")
            value = verb(request, Round(first, final, conversation))
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
        version = self._agree(request.peer, hello)
        return wire.Welcome(
            version=version,
            node=self._node_id,
            session=self._conversations.open(request.peer),
            inbox=self._inbox.store_id,
            batch_bytes=self.limits.batch_bytes,
            batch_count=self.limits.batch_count,
            max_body=self.limits.max_body or 2**63 - 1,
        )

    def _agree(self, peer: str, hello: wire.Hello) -> int:
        """The version in which both go on. Raises Refused; that is told once, and once that it is over."""
        try:
            version = agree(self._node, peer, hello)
        except Refused as refusal:
            self._tell_version(peer, "", refusal.reason)
            raise
        self._tell_version(peer, "", "")
        return version

    def _tell_version(self, peer: str, channel: str, reason: str) -> None:
        """What another version makes impossible between the two; empty: nothing. Told when it changes."""
        known = self._versions.pop((peer, channel), "")
        if reason:
            self._versions[peer, channel] = reason
        if reason != known:
            self._event("other_version", {"peer": peer, "channel": channel, "reason": reason})

    def _push(self, request: Request, _round: Round) -> wire.Pushed:
        push = wire.decode(request.body, wire.Push)
        _check_count(len(push.lanes), MAX_LANES, "lanes in one push")
        _check_count(sum(len(part.envelopes) for part in push.lanes), MAX_BATCH_COUNT, "messages in one push")
        verdicts, _ = accept_push(
            self._inbox, request.peer, StoreId(push.store), push.lanes, partial(self._allows, request.peer),
            self.limits.max_body, self._bodies, self._arrived,
        )  # fmt: skip
        for part, verdict in zip(push.lanes, verdicts, strict=True):
            newer = verdict.reason if verdict.reason.startswith(TOO_NEW) else ""
            if newer or self._versions:
                self._tell_version(request.peer, part.channel, newer)
        if taken := taken_of([part.envelopes for part in push.lanes], verdicts):
            told = {"side": "inbox", "peer": request.peer, "count": len(taken), "messages": FactsOf(taken)}
            self._event("batch_accepted", told)
        receipts = None
        if push.receipts is not None:
            receipts = self._page(request.peer, push.receipts)
        return wire.Pushed(verdicts, receipts if receipts and receipts.rows else None)

    def _arrived(self, channels: Iterable[str]) -> None:
        for channel in channels:
            self._notify(topics.inbox(channel))

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
            log = StoreId(ask.outcomes.log)
            if self._outside.are_over(request.peer, log) and self._outbox.receipts(
                request.peer, log, rows, ask.outcomes.upto
            ):
                self._notify(topics.RECEIPTS)
        else:
            doubt = this.conversation is not None and self._conversations.begins_to_fetch(
                request.peer, this.conversation
            )
            _check_count(len(ask.heads), MAX_LANES, "heads in one fetch")
            _check_count(len(ask.without), MAX_LANES, "lanes left out in one fetch")
            _check_count(len(ask.rejected), MAX_RECEIPTS, "rejections in one fetch")
            mail = build_fetch_response(
                self._outbox, request.peer, ask.heads, self.limits.batch_count, self._room(request.peer), self._event,
                self._on_reset, fresh=this.first, doubt=doubt, without=ask.without, partial=ask.partial,
                rejected=ask.rejected,
            )  # fmt: skip
            if mail.less:
                # Old news, or a store that was restored below a running peer: the first words after a hello are
                # believed, for they come once.
                raise Refused("new_session", "this is less than this node said it has: say hello again")
            if doubt and this.conversation is not None and not mail.stale:
                self._conversations.note_fetching(request.peer, this.conversation)
            if mail.settled:
                self._notify(topics.RECEIPTS)
            parts, unknown = mail.parts, list(mail.unknown)
            if not parts and not unknown and not mail.stale and not this.final and ask.wait > 0:
                return Wait((topics.mail(request.peer),), min(ask.wait, MAX_WAIT))
        state = self._outbox.peers().get(request.peer)
        cursor = wire.Cursor(state.log or b"" if state else b"", state.cursor if state else 0)
        return wire.Fetched(self._outbox.store_id, parts, cursor, unknown)

    def _room(self, peer: str) -> int:
        """Bytes of messages, or of receipts, in the next answer to a peer."""
        return min(self.limits.batch_bytes, max(SMALL, self.answers.room(peer)))

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
        ask = wire.decode(request.body, wire.Read)
        room = self.answers.room(request.peer)
        if not room:
            raise Refused("busy", "many peers are reading from this node at once")
        if ask.count > room:  # whole leaves: that is what may be fewer than were asked for
            ask = msgspec.structs.replace(ask, count=min(ask.count, max(LEAF, room - room % LEAF)))
        return self._carry.read(request.peer, ask)

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
        room = min(RECEIPTS_BYTES, self._room(peer))
        own, rows = self._inbox.outcomes(peer, log, cursor.after, MAX_RECEIPTS, room)
        start = cursor.after if log == own else 0
        return wire.Outcomes(own, rows[-1].number if rows else start, [from_outcome(row) for row in rows])


def _check_count(count: int, most: int, what: str) -> None:
    if count > most:
        raise Refused("too_big", f"{count} {what}: the limit is {most}")
