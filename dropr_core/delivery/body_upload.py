"""Bringing large bodies to one peer, beside the lanes, so that no small message waits for them.

Owns which body is on its way, how much of it, and which large-body lanes may be shipped because their
next message's body is at the peer. Must not know how lanes are shipped (link.py, pusher.py).

One body at a time to each peer, a few pieces of it under way at once. Nothing is kept about it: after
any break the peer is asked how much it has. A body that cannot be read makes its own lane wait, and its message die
in the end; it is no reason to let the peer, or any other lane, wait.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import attrs

from dropr_core.api.store_trouble import READ, WRITE, StoreTrouble
from dropr_core.contracts.bodies import Bodies, Load, no_fault_of_a_body
from dropr_core.contracts.storage import LaneStats, Outbox
from dropr_core.delivery.peer_client import PeerClient
from dropr_core.errors import Refused, StoreCorrupt, StoreError, Unanswered, Unreachable
from dropr_core.model.backoff import Backoff
from dropr_core.model.chunk_digest import LEAF
from dropr_core.model.envelope import Reference, reference_of
from dropr_core.model.limits import PIECES_AHEAD, clip
from dropr_core.model.names import Lane, MessageId, format_id
from dropr_core.protocol import messages as wire
from dropr_core.protocol.rests import NEW_SESSION, OLD_SESSION
from dropr_core.system.clock import Clock
from dropr_core.system.log_fields import about

WINDOW = 4
"""Pieces of one body under way at once."""

ALL_PIECES = 16 * 1024 * 1024
"""Bytes of pieces under way at once to all peers together: what bodies cost in memory."""

LARGEST = 16 * LEAF
"""Bytes of one piece at most; a leaf at least."""

PATIENCE = 2.0
"""Seconds until a peer that has no room is asked again."""

SOON = 0.01
"""Seconds until the next body is begun after one was given up: what is behind it waits for nothing else."""

FRUITLESS = 3
"""Rounds in which nothing arrived before the body is given a rest."""

UNREADABLE = Backoff(1.0, 30.0)
UNREADABLE_TRIES = 7
"""Tries to read a body, about a minute in all: time for somebody to mend its permission. Then its message is given up,
so that those behind it go on; `redrive` sends it again."""

NOT_WANTED = frozenset({"too_big", "not_allowed", "unsupported", "bad_frame"})
"""Refusals of a body for good: then its message is shipped without it, so that the peer refuses that one."""


@attrs.define
class _Unreadable:
    """A body that could not be read."""

    sequence: int
    id: MessageId
    reason: str
    tries: int
    until: float


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
        trouble: StoreTrouble,
        unreachable: Callable[[Exception], None],
    ) -> None:
        self.peer = peer
        self.new_session = False
        """The peer began anew: somebody must greet before there is an answer again."""
        self._talk, self._outbox, self._bodies, self._clock, self._budget = talk, outbox, bodies, clock, budget
        self._backoff, self._event, self._log, self._unreachable = backoff, event, log, unreachable
        self._ready: dict[Lane, int] = {}
        self._trouble = trouble
        self._unreadable: dict[Lane, _Unreadable] = {}
        self._upload: Upload | None = None
        self._seen: list[tuple[object, ...]] = []
        self._rest_until = 0.0
        self._failures = 0

    # ── what the pusher asks ────────────────────────────────────────────────────────────────────

    @property
    def quiet(self) -> bool:
        """Whether there is nothing to carry on with."""
        return not (self.new_session or self._upload or self._ready or self._unreadable)

    def turn(self, now: float, lanes: Sequence[LaneStats], *, open_: bool) -> list[LaneStats]:
        """Carry on; which of these large-body lanes may be shipped, their first delivery only.

        ``open_``: whether there is a session with the peer, and it is not resting.
        """
        waiting = [stats for stats in lanes if stats.lane.large]
        self._forget_gone(waiting)
        if open_ and self._upload is None and now >= self._rest_until:
            self._begin(now, waiting)
        elif not open_ and self._upload is not None:
            self._drop()
        return [stats for stats in waiting if stats.lane in self._ready]

    def wakes_at(self, now: float) -> float | None:
        """When `turn` may do something new by the passing of time alone."""
        wakes = [self._rest_until, *(unreadable.until for unreadable in self._unreadable.values())]
        return min((wake for wake in wakes if wake > now), default=None)

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

    @property
    def unreadable(self) -> list[dict[str, object]]:
        """Messages that wait because their body cannot be read here, for people."""
        return [
            {"id": format_id(one.id), "lane": str(lane), "reason": one.reason} for lane, one in self._unreadable.items()
        ]

    # ── one body ─────────────────────────────────────────────────────────────────────────────────

    def _forget_gone(self, waiting: Sequence[LaneStats]) -> None:
        """What was shipped, cancelled or has expired needs no body any more."""
        seen: list[tuple[object, ...]] = [(stats.lane, stats.head, stats.last, stats.depth) for stats in waiting]
        if seen == self._seen or not (self._ready or self._upload or self._unreadable):
            return  # nothing came or went since: turns are many, one for each piece
        first: dict[Lane, int] = {}
        for stats in waiting:
            if (found := self._first(stats.lane)) is None:
                return  # the store cannot say it now: asked again when it can
            first[stats.lane] = found[0]
        self._seen = seen
        for lane, sequence in list(self._ready.items()):
            if first.get(lane, 0) != sequence:
                del self._ready[lane]
        for lane, unreadable in list(self._unreadable.items()):
            if first.get(lane, 0) != unreadable.sequence:
                del self._unreadable[lane]
        upload = self._upload
        if upload is not None and first.get(upload.lane, 0) != upload.sequence:
            self._drop()

    def _first(self, lane: Lane) -> tuple[int, MessageId, bytes] | None:
        """The lane's next message, all empty where there is none; None if the store cannot say it now."""
        thing = (READ, lane)
        if self._trouble.rests(thing):
            return None
        with self._trouble.guard(thing):
            batch = self._outbox.take(lane, 1, 1, mark_in_flight=False)
            if batch is None:
                return (0, MessageId(b""), b"")
            entry = batch.entries[0]
            return entry.sequence, entry.id, entry.envelope
        return None

    def _begin(self, now: float, waiting: Sequence[LaneStats]) -> None:
        for stats in sorted(waiting, key=lambda stats: (stats.lane.priority, -stats.oldest)):
            lane = stats.lane
            unreadable = self._unreadable.get(lane)
            if lane in self._ready or self._trouble.rests((WRITE, lane)) or (unreadable and unreadable.until > now):
                continue
            found = self._first(lane)
            if found is None:
                continue
            sequence, identity, data = found
            reference = reference_of(data) if data else None
            if reference is None:
                if sequence:
                    self._ready[lane] = sequence  # no large body after all: let the peer judge it
                continue
            if (file := self._open(lane, sequence, identity, reference)) is None:
                continue
            ask = wire.Have(identity, lane.channel, reference.size, reference.digest)
            self._upload = Upload(lane, sequence, identity, reference, ask, file)
            self._budget.active += 1
            self._ask_have(self._upload)
            return

    def _open(self, lane: Lane, sequence: int, identity: MessageId, reference: Reference) -> Load | None:
        try:
            return self._bodies.load(identity, reference)
        except StoreCorrupt as error:
            self._give_up(lane, sequence, str(error))
        except (StoreError, OSError) as error:
            self._cannot_read(lane, sequence, identity, error)
        return None

    def _cannot_read(self, lane: Lane, sequence: int, identity: MessageId, error: Exception) -> None:
        """This message alone waits for a body that may be readable later, and dies if it never is."""
        if no_fault_of_a_body(error):
            self._trouble.failed((READ, "bodies"), error)
            self._rest(PATIENCE)
            return
        before = self._unreadable.get(lane)
        tries = before.tries + 1 if before is not None and before.sequence == sequence else 1
        reason = f"its body cannot be read: {error}"
        if tries >= UNREADABLE_TRIES:
            self._give_up(lane, sequence, reason)
            return
        until = self._clock.now() + UNREADABLE.fixed(tries)
        self._unreadable[lane] = _Unreadable(sequence, identity, reason, tries, until)
        if tries == 1:
            self._log.error("%s: message %s on %s waits, and what is behind it: %s; given up after a minute",
                            self.peer, format_id(identity), lane, reason,
                            extra=about(message=identity, peer=self.peer, lane=lane))  # fmt: skip

    def _give_up(self, lane: Lane, sequence: int, reason: str) -> None:
        if self._trouble.attempt((WRITE, lane), lambda: self._outbox.dead_letter(lane, sequence, clip(reason))):
            self._unreadable.pop(lane, None)
            self._rest(SOON)
            self._log.error("%s: delivery #%d of %s is set aside as dead: %s", self.peer, sequence, lane, reason,
                            extra=about(peer=self.peer, lane=lane))  # fmt: skip
            self._event("corrupt", {"peer": self.peer, "lane": str(lane), "error": reason})

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
        if (
            answer.offset > upload.had and self._budget.active == 1
        ):  # else another peer may be about to get the same body
            upload.file.passed(upload.had, answer.offset - upload.had)
        upload.had = max(upload.had, answer.offset) if sent is not None else answer.offset
        if upload.had >= upload.reference.size:
            self._ready[upload.lane] = upload.sequence
            self._unreadable.pop(upload.lane, None)
            self._drop()
        elif upload.fruitless >= FRUITLESS:
            self._failed(upload, Unanswered("the peer takes nothing of a body"))
        else:
            self._pump(upload)

    def _pump(self, upload: Upload) -> None:
        while (
            upload.known
            and upload.under_way < self._budget.window
            and upload.asked < upload.reference.size
            and upload.asked - upload.had <= PIECES_AHEAD  # behind a piece that is late the peer keeps no more
        ):
            offset, size = upload.asked, min(self._budget.piece, upload.reference.size - upload.asked)
            try:
                chunk = wire.Chunk(upload.ask, offset, upload.file.leaves(offset, size))
            except (StoreError, OSError) as error:
                self._broke(upload, error)
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
            self._broke(upload, upload.file.failure)
        else:
            self._told(upload, answer, size)

    def _broke(self, upload: Upload, error: Exception) -> None:
        self._drop()
        if isinstance(error, StoreCorrupt):
            self._give_up(upload.lane, upload.sequence, str(error))
        else:
            self._cannot_read(upload.lane, upload.sequence, upload.id, error)

    def _failed(self, upload: Upload, error: Exception) -> None:
        self._drop()
        # A replayed request is one that the road doubled: the first copy arrived, so it is unknown and no refusal.
        if isinstance(error, Refused) and error.signed and error.code != "replayed":
            if error.code in NOT_WANTED:
                self._ready[upload.lane] = upload.sequence
                return
            if error.code == NEW_SESSION:
                self.new_session = True
            if error.code in {NEW_SESSION, OLD_SESSION}:
                return
            if error.code == "bad_body":
                self._check_own(upload)
                return
            self._rest(PATIENCE)
            return
        self._failures += 1
        self._log.debug("%s: body of %s: %s", self.peer, format_id(upload.id), error,
                        extra=about(message=upload.id, peer=self.peer))  # fmt: skip
        self._rest(self._backoff.fixed(self._failures))
        if isinstance(error, Unreachable):
            self._unreachable(error)

    def _check_own(self, upload: Upload) -> None:
        """All of it arrived and was wrong: was it ours that is damaged? Then trying again is in vain."""
        try:
            with self._bodies.open_sent(upload.id, upload.reference) as file:
                while file.read(1024 * 1024):
                    pass
        except (StoreError, OSError) as error:
            self._broke(upload, error)
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
