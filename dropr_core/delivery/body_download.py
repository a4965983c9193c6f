"""Large bodies for a node that fetches its mail: asked for piece by piece, before their message is taken in.

Owns which bodies are on their way from one peer. Must not know lanes' heads or receipts (puller.py).
"""

import logging
from collections.abc import Callable

import attrs

from dropr_core.contracts.bodies import Arrival, Bodies
from dropr_core.delivery.peer_client import PeerClient
from dropr_core.errors import BadBody, DroprError, Refused, StoreError
from dropr_core.model.chunk_digest import LEAF
from dropr_core.model.envelope import header_of, reference_of
from dropr_core.model.limits import PIECES_AHEAD
from dropr_core.model.names import MessageId
from dropr_core.protocol import messages as wire
from dropr_core.system.clock import Clock
from dropr_core.system.log_fields import about

WINDOW = 4
PIECE = 1024 * 1024
"""Bytes asked for at once."""

REST = 2.0
"""Seconds until a body that could not be brought is asked for again."""

_Name = tuple[str, int]


@attrs.define(eq=False)
class _Download:
    """One body on its way."""

    part: wire.LanePart
    store: bytes
    have: wire.Have
    file: Arrival
    had: int
    """Bytes that are here without a gap."""
    asked: int
    """Where what was not asked for yet begins."""
    under_way: int = 0


class BodyDownloads:
    """The bodies from one peer. Used by the daemon's one thread."""

    def __init__(
        self,
        peer: str,
        talk: PeerClient,
        bodies: Bodies,
        clock: Clock,
        log: logging.Logger,
        arrived: Callable[[bytes, wire.LanePart], None],
    ) -> None:
        self._peer, self._talk, self._clock, self._log, self._arrived = peer, talk, clock, log, arrived
        self._arrivals = bodies.arrivals()
        self._coming: dict[_Name, _Download] = {}
        self._resting: dict[_Name, float] = {}
        self._said: dict[_Name, str] = {}
        """What the log says already of a lane whose body cannot be brought."""

    def without(self) -> list[_Name]:
        """The lanes of which nothing is wanted now."""
        return [*self._coming, *self._resting]

    def end_rests(self, now: float) -> bool:
        """Let lanes that rested long enough be asked for again; whether there were any."""
        over = [name for name, until in self._resting.items() if until <= now]
        for name in over:
            del self._resting[name]
        return bool(over)

    @property
    def wakes_at(self) -> float | None:
        """Node time at which a rest ends."""
        return min(self._resting.values(), default=None)

    def begin(self, store: bytes, part: wire.LanePart) -> None:
        """Bring the body of the one message of this part; then it is handed to ``arrived``."""
        name = (part.channel, part.priority)
        if name in self._coming or len(part.envelopes) != 1:
            return
        reference = reference_of(part.envelopes[0])
        if reference is None:
            return
        identity = MessageId(header_of(part.envelopes[0]).id)
        try:
            file = self._arrivals.of(self._peer, identity, reference)
            have = wire.Have(identity, part.channel, reference.size, reference.digest)
            had = file.have()
            coming = _Download(part, store, have, file, had, had)
        except (StoreError, OSError) as error:
            self._rest(name, error)
            return
        self._coming[name] = coming
        self._pump(name, coming)

    def _pump(self, name: _Name, coming: _Download) -> None:
        size = coming.have.size
        # Behind a piece that is late no more is kept: what is thrown away would have to be asked for again.
        while coming.under_way < WINDOW and coming.asked < size and coming.asked - coming.had <= PIECES_AHEAD:
            ask = wire.Read(coming.have, coming.asked, min(PIECE, size - coming.asked))
            coming.asked += ask.count
            coming.under_way += 1

            def came(answer: wire.Piece | Exception, ask: wire.Read = ask) -> None:
                self._came(name, coming, ask, answer)

            self._talk.ask(wire.READ, ask, wire.Piece, came)

    def _came(self, name: _Name, coming: _Download, ask: wire.Read, answer: wire.Piece | Exception) -> None:
        coming.under_way -= 1
        if self._coming.get(name) is not coming:
            return
        if not isinstance(answer, Exception) and not _fits(ask, len(answer.data)):
            answer = BadBody(f"a piece of {len(answer.data)} bytes where {ask.count} were asked for")
        if isinstance(answer, Exception):
            self._end(name)
            self._rest(name, answer)
            return
        try:
            have = coming.had = coming.file.write(ask.offset, answer.data)
        except (StoreError, OSError, BadBody) as error:
            self._end(name)
            self._rest(name, error)
            return
        if have >= coming.have.size:
            self._end(name)
            self._said.pop(name, None)
            self._arrived(coming.store, coming.part)
        elif coming.under_way == 0 and (coming.asked >= coming.have.size or coming.asked - have > PIECES_AHEAD):
            coming.asked = have  # something came and was not kept: from the gap on once more
            self._pump(name, coming)
        else:
            if len(answer.data) < ask.count:
                coming.asked = min(coming.asked, ask.offset + len(answer.data))
            self._pump(name, coming)

    def _end(self, name: _Name) -> None:
        self._coming.pop(name, None)

    def _rest(self, name: _Name, error: Exception) -> None:
        self._resting[name] = self._clock.now() + REST
        shown = str(error) if isinstance(error, DroprError) else f"{type(error).__name__}: {error}"
        kind = error.code if isinstance(error, Refused) else type(error).__name__
        if self._said.get(name) != kind:  # what it says may differ from try to try (bytes that are free)
            self._said[name] = kind
            self._log.warning("%s: a body on %s:%d cannot be brought, it is tried every %.0f s: %s",
                              self._peer, name[0], name[1], REST, shown,
                              extra=about(peer=self._peer, channel=name[0]))  # fmt: skip

    def close(self) -> None:
        """Give up what is under way; what arrived stays. Safe twice."""
        self._coming.clear()
        self._arrivals.close()


def _fits(ask: wire.Read, size: int) -> bool:
    """Whether so many bytes may be the answer: all that was asked for, or fewer whole leaves."""
    return size == ask.count or (0 < size < ask.count and size % LEAF == 0)
