"""Bringing large bodies to one peer, beside the lanes, so that no small message waits for them.

Owns which body is on its way, how much of it, and which large-body lanes may be shipped because their
next message's body is at the peer. Must not know how lanes are shipped (link.py, pusher.py).

One body at a time to each peer, a few pieces of it under way at once. Nothing is kept about it: after
any break the peer is asked how much it has.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import attrs

from dropr_core.bodies.chunk_digest import LEAF
from dropr_core.bodies.files import Load
from dropr_core.bodies.store import Bodies
from dropr_core.contracts.storage import LaneStats, Outbox
from dropr_core.delivery.peer_client import PeerClient
from dropr_core.errors import Refused, StoreCorrupt, StoreError, Unanswered, Unreachable
from dropr_core.model.backoff import Backoff
from dropr_core.model.envelope import Reference, reference_of
from dropr_core.model.limits import clip
from dropr_core.model.names import Lane, MessageId, format_id
from dropr_core.protocol import messages as wire
from dropr_core.system.clock import Clock

WINDOW = 4
"""Pieces of one body under way at once."""

ALL_PIECES = 16 * 1024 * 1024
"""Bytes of pieces under way at once to all peers together: what bodies cost in memory."""

LARGEST = 16 * LEAF
"""Bytes of one piece at most; a leaf at least."""

PATIENCE = 5.0
"""Seconds until a peer that has no room is asked again."""

FRUITLESS = 3
"""Rounds in which nothing arrived before the body is given a rest."""

NOT_WANTED = frozenset({"too_big", "not_allowed", "unsupported", "bad_frame"})
"""Refusals of a body for good: then its message is shipped without it, so that the peer refuses that one."""


@attrs.define(eq=False)
class Upload:
    """One body on its way."""

    lane: Lane
    sequence: int
    id: MessageId
    reference: Reference
    ask: wire.Have
    file: Load
    asked: int = 0
    """Bytes that pieces were made of since the peer was last asked how much it has."""
    had: int = 0
    under_way: int = 0
    known: bool = False
    fruitless: int = 0


class UploadBudget:
    """How many peers get a body at present; they share the memory for pieces."""

    def __init__(self) -> None:
        self.active = 0
        self.settled = False
        """Whether a message of a large-body lane was settled since somebody last looked."""

    @property
    def piece(self) -> int:
        """Bytes of one piece now."""
        room = ALL_PIECES // (WINDOW * max(1, self.active))
        return min(LARGEST, max(LEAF, room // LEAF * LEAF))

    @property
    def window(self) -> int:
        """Pieces of one body under way at once, now."""
        return min(WINDOW, max(1, ALL_PIECES // (LEAF * max(1, self.active))))


class BodyUploads:
    """The bodies for one peer. Used by the daemon's one thread."""

    def __init__(
        self,
        peer: str,
        talk: PeerClient,
        outbox: Outbox,
        bodies: Bodies,
        clock: Clock,
        budget: UploadBudget,
        *,
        backoff: Backoff,
        event: Callable[[str, Mapping[str, object]], None],
        log: logging.Logger,
        unreachable: Callable[[Exception], None],
    ) -> None:
        self.peer = peer
        self.new_session = False
        """The peer began anew: somebody must greet before there is an answer again."""
        self._talk, self._outbox, self._bodies, self._clock, self._budget = talk, outbox, bodies, clock, budget
        self._backoff, self._event, self._log, self._unreachable = backoff, event, log, unreachable
        self._ready: dict[Lane, int] = {}
        self._upload: Upload | None = None
        self._seen: list[tuple[object, ...]] = []
        self._rest_until = 0.0
        self._failures = 0

    # ── what the pusher asks ────────────────────────────────────────────────────────────────────

    def turn(self, now: float, lanes: Sequence[LaneStats], *, open_: bool) -> list[LaneStats]:
        """Carry on; which of these large-body lanes may be shipped, their first delivery only.

        ``open_``: whether there is a session with the peer, and it is not resting.
        """
        waiting = [stats for stats in lanes if stats.lane.large]
        self._forget_gone(waiting)
        if open_ and self._upload is None and now >= self._rest_until:
            self._begin(waiting)
        elif not open_ and self._upload is not None:
            self._drop()
        return [stats for stats in waiting if stats.lane in self._ready]

    def wakes_at(self, now: float) -> float | None:
        """When `turn` may do something new by the passing of time alone."""
        return self._rest_until if self._rest_until > now else None

    def missing(self, lane: Lane) -> None:
        """The peer says that it does not have the body of the lane's next message."""
        self._ready.pop(lane, None)

    @property
    def progress(self) -> dict[str, object] | None:
        """What is on its way, for people."""
        upload = self._upload
        if upload is None:
            return None
        return {"id": format_id(upload.id), "bytes": upload.had, "of": upload.reference.size}

    # ── one body ─────────────────────────────────────────────────────────────────────────────────

    def _forget_gone(self, waiting: Sequence[LaneStats]) -> None:
        """What was shipped, cancelled or has expired needs no body any more."""
        seen: list[tuple[object, ...]] = [(stats.lane, stats.head, stats.last, stats.depth) for stats in waiting]
        if seen == self._seen or (not self._ready and self._upload is None):
            return  # nothing came or went since: turns are many, one for each piece
        self._seen = seen
        first = {stats.lane: self._first(stats) for stats in waiting}
        for lane, sequence in list(self._ready.items()):
            if first.get(lane, (0,))[0] != sequence:
                del self._ready[lane]
        upload = self._upload
        if upload is not None and first.get(upload.lane, (0,))[0] != upload.sequence:
            self._drop()

    def _first(self, stats: LaneStats) -> tuple[int, MessageId, bytes]:
        batch = self._outbox.take(stats.lane, 1, 1, mark_in_flight=False)
        if batch is None:
            return (0, MessageId(b""), b"")
        entry = batch.entries[0]
        return entry.sequence, entry.id, entry.envelope

    def _begin(self, waiting: Sequence[LaneStats]) -> None:
        for stats in sorted(waiting, key=lambda stats: (stats.lane.priority, -stats.oldest)):
            if stats.lane in self._ready:
                continue
            sequence, identity, data = self._first(stats)
            reference = reference_of(data) if data else None
            if reference is None:
                if sequence:
                    self._ready[stats.lane] = sequence  # no large body after all: let the peer judge it
                continue
            try:
                file = self._bodies.load(identity, reference)
            except StoreCorrupt as error:
                self._give_up(stats.lane, sequence, str(error))
                continue
            ask = wire.Have(identity, stats.lane.channel, reference.size, reference.digest)
            self._upload = Upload(stats.lane, sequence, identity, reference, ask, file)
            self._budget.active += 1
            self._ask_have(self._upload)
            return

    def _give_up(self, lane: Lane, sequence: int, reason: str) -> None:
        self._log.error("%s: delivery #%d of %s is set aside as dead: %s", self.peer, sequence, lane, reason)
        self._event("corrupt", {"peer": self.peer, "lane": str(lane), "error": reason})
        self._outbox.dead_letter(lane, sequence, clip(reason))

    def _ask_have(self, upload: Upload) -> None:
        upload.known = False
        upload.under_way += 1
        self._talk.ask(wire.HAVE, upload.ask, wire.Had, lambda answer: self._told(upload, answer, None))

    def _told(self, upload: Upload, answer: wire.Had | Exception, sent: int | None) -> None:
        """The answer to a question (``sent`` None) or to a piece of so many bytes."""
        upload.under_way -= 1
        if upload is not self._upload:
            return
        if isinstance(answer, wire.Had) and not 0 <= answer.offset <= upload.reference.size:
            answer = Unanswered(f"the peer says that it has {answer.offset} of {upload.reference.size} bytes")
        if isinstance(answer, Exception):
            self._failed(upload, answer)
            return
        self._failures = 0
        if sent is None:
            upload.fruitless = upload.fruitless + 1 if answer.offset <= upload.had and upload.asked else 0
            upload.known, upload.asked = True, answer.offset
        upload.had = max(upload.had, answer.offset) if sent is not None else answer.offset
        if upload.had >= upload.reference.size:
            self._ready[upload.lane] = upload.sequence
            self._drop()
        elif upload.fruitless >= FRUITLESS:
            self._failed(upload, Unanswered("the peer takes nothing of a body"))
        else:
            self._pump(upload)

    def _pump(self, upload: Upload) -> None:
        while upload.known and upload.under_way < self._budget.window and upload.asked < upload.reference.size:
            offset, size = upload.asked, min(self._budget.piece, upload.reference.size - upload.asked)
            try:
                chunk = wire.Chunk(upload.ask, offset, upload.file.leaves(offset, size))
            except OSError as error:
                self._unreadable(upload, error)
                return
            upload.asked += size
            upload.under_way += 1
            told = partial(self._told_of_piece, upload, size)
            self._talk.ask(wire.CHUNK, chunk, wire.Had, told, tail=upload.file.piece(offset, size))
            if upload is not self._upload:
                return
        if upload.under_way == 0:
            self._ask_have(upload)  # everything was sent and something is missing: ask what

    def _told_of_piece(self, upload: Upload, size: int, answer: wire.Had | Exception) -> None:
        if upload is self._upload and isinstance(answer, Exception) and upload.file.failure is not None:
            self._unreadable(upload, upload.file.failure)
        else:
            self._told(upload, answer, size)

    def _unreadable(self, upload: Upload, error: OSError) -> None:
        self._drop()
        self._give_up(upload.lane, upload.sequence, f"its body cannot be read: {error}")

    def _failed(self, upload: Upload, error: Exception) -> None:
        self._drop()
        # A replayed request is one that the road doubled: the first copy arrived, so it is unknown and no refusal.
        if isinstance(error, Refused) and error.signed and error.code != "replayed":
            if error.code in NOT_WANTED:
                self._ready[upload.lane] = upload.sequence
                return
            if error.code == "new_session":
                self.new_session = True
                return
            if error.code == "bad_body":
                self._check_own(upload)
                return
            self._rest(PATIENCE)
            return
        self._failures += 1
        self._log.debug("%s: body of %s: %s", self.peer, format_id(upload.id), error)
        self._rest(self._backoff.fixed(self._failures))
        if isinstance(error, Unreachable):
            self._unreachable(error)

    def _check_own(self, upload: Upload) -> None:
        """All of it arrived and was wrong: was it ours that is damaged? Then trying again is in vain."""
        try:
            with self._bodies.open_sent(upload.id, upload.reference) as file:
                while file.read(1024 * 1024):
                    pass
        except StoreError as error:
            self._give_up(upload.lane, upload.sequence, str(error))
            return
        self._rest(PATIENCE)

    def _rest(self, seconds: float) -> None:
        self._rest_until = self._clock.now() + seconds

    def _drop(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            self._budget.active -= 1
            upload.file.close()

    def reset_backoff(self) -> None:
        """The peer talked to us, or a person asked to retry."""
        self._rest_until = 0.0

    def close(self) -> None:
        """Give up what is under way; safe twice."""
        self._drop()
