"""The verbs that carry large bodies: how much is here, take a piece, give a piece.

Owns what may be taken in or read out, and what becomes of a delivery whose body turns out to be damaged here.
Must not know who may ask (endpoint.py authenticates) nor how pieces are asked for (body_upload.py, body_download.py).
"""

import hmac
import threading
from collections.abc import Callable, Mapping

from dropr_core.contracts.bodies import Arrival, Bodies, no_fault_of_a_body
from dropr_core.contracts.storage import Delivery, Outbox
from dropr_core.errors import BadBody, QueueFull, Refused, StoreCorrupt, StoreError
from dropr_core.model.chunk_digest import LEAF, leaves_of
from dropr_core.model.envelope import Reference, reference_of
from dropr_core.model.limits import PIECE, clip
from dropr_core.model.message import State
from dropr_core.model.names import Lane, MessageId
from dropr_core.protocol import messages as wire

UNREADABLE_TRIES = 120
"""Times that a body is asked for in vain, a minute at least: time for somebody to mend its permission. Then its
message is given up, so that those behind it go on; `redrive` sends it again."""

REMEMBERED = 1000
"""Bodies of which it is counted."""


class BodyRequests:
    """Answers for one node. ``bodies`` None: it keeps no large bodies, and says so."""

    def __init__(
        self,
        outbox: Outbox,
        bodies: Bodies | None,
        max_body: Callable[[], int | None],
        event: Callable[[str, Mapping[str, object]], None],
    ) -> None:
        self._outbox, self._bodies, self._max_body, self._event = outbox, bodies, max_body, event
        self._arrivals = None if bodies is None else bodies.arrivals()
        self._in_vain: dict[MessageId, int] = {}
        self._lock = threading.Lock()

    # ── bodies that come ─────────────────────────────────────────────────────────────────────────

    def have(self, peer: str, body: wire.Have) -> wire.Had:
        """How much of a body is here. Raises Refused, StoreError."""
        return wire.Had(self._partial_body(peer, body).have())

    def chunk(self, peer: str, chunk: wire.Chunk, piece: memoryview) -> wire.Had:
        """Take a piece; how much is here then. Raises Refused, StoreError."""
        body, size = chunk.body, len(piece)
        if size > PIECE:
            raise Refused("too_big", f"a piece of {size} bytes: the limit is {PIECE}")
        if not 0 <= chunk.offset <= body.size - size:
            raise Refused("bad_frame", "a piece that is not within its body")
        if chunk.offset % LEAF or (size % LEAF and chunk.offset + size != body.size):
            raise Refused("bad_frame", "a piece that does not consist of whole leaves")
        arriving = self._partial_body(peer, body)
        try:
            if not hmac.compare_digest(leaves_of(piece), chunk.leaves):
                # Altered on the way, or no more what it was when it was written: its sender has to look.
                raise BadBody("a piece of a body does not match the digests of its leaves")
            return wire.Had(arriving.write(chunk.offset, piece, chunk.leaves))
        except BadBody as error:
            self._event("bad_body", {"peer": peer, "error": str(error)})
            raise Refused("bad_body", str(error)) from None

    def _partial_body(self, peer: str, body: wire.Have) -> Arrival:
        if self._arrivals is None:
            raise Refused("unsupported", "this node keeps no large bodies")
        if len(body.id) != 16 or len(body.digest) != 32 or body.size < 0:
            raise Refused("bad_frame", "an impossible id, digest or size of a body")
        limit = self._max_body()
        if limit is not None and body.size > limit:
            raise Refused("too_big", f"a body of {body.size} bytes: the limit here is {limit}")
        return self._arrivals.of(peer, MessageId(body.id), Reference(body.size, body.digest))

    # ── bodies that are fetched ──────────────────────────────────────────────────────────────────

    def read(self, peer: str, ask: wire.Read) -> wire.Piece:
        """A piece of the body of a message for ``peer``. Raises Refused, StoreError."""
        identity, reference = MessageId(ask.body.id), Reference(ask.body.size, ask.body.digest)
        mine = next((one for one in self._outbox.status(identity) if one.peer == peer), None)
        if self._bodies is None or mine is None:
            raise Refused("unknown_body", "no such message for this peer")
        try:
            return wire.Piece(memoryview(self._piece(self._bodies, identity, reference, ask.offset, ask.count)))
        except StoreCorrupt as error:
            self._give_up(mine, reference, str(error))
            raise Refused("unknown_body", clip(str(error))) from None
        except (StoreError, OSError) as error:
            if no_fault_of_a_body(error):
                raise QueueFull(str(error)) from error
            reason = f"its body cannot be read: {error}"
            if self._tried_in_vain(identity) >= UNREADABLE_TRIES:
                self._give_up(mine, reference, reason)
            raise Refused("unreadable", clip(reason)) from None

    def _tried_in_vain(self, identity: MessageId) -> int:
        """How often in a row the body could not be read, this time included."""
        with self._lock:
            tries = self._in_vain[identity] = self._in_vain.pop(identity, 0) + 1
            if len(self._in_vain) > REMEMBERED:
                del self._in_vain[next(iter(self._in_vain))]
        return tries

    @staticmethod
    def _piece(bodies: Bodies, identity: MessageId, reference: Reference, offset: int, count: int) -> bytes:
        offset = min(max(0, offset), reference.size)
        size = max(0, min(count, PIECE, reference.size - offset))
        load = bodies.load(identity, reference)
        try:
            data = load.read(offset, size)
            whole = offset % LEAF == 0 and (size % LEAF == 0 or offset + size == reference.size)
            if whole and leaves_of(data) != load.leaves(offset, size):
                raise StoreCorrupt(f"its body is damaged at rest, within {size} bytes from {offset} on")
            return data
        finally:
            load.close()

    def _give_up(self, mine: Delivery, reference: Reference, reason: str) -> None:
        """A body that cannot be given any more: its delivery ends, so that the ones behind it go on."""
        data = self._outbox.envelope(mine.id)
        if mine.state is not State.QUEUED or data is None or reference_of(data) != reference:
            return  # not what this peer should have asked for
        lane = Lane(mine.peer, mine.channel, mine.priority)
        self._event("corrupt", {"peer": mine.peer, "lane": str(lane), "error": reason})
        self._outbox.dead_letter(lane, mine.sequence, clip(reason))

    def close(self) -> None:
        """Let go of files that are being written; safe twice."""
        if self._arrivals is not None:
            self._arrivals.close()
