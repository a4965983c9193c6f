"""Messages of which most is known before: what `send` and batches do most, at a fraction of the cost.

Owns `Composed`, and `MessageTemplate`, which makes messages that differ in id, time and body only. Must not know how a
way is found, nor what is stored.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from dropr_core.contracts.bodies import Written
from dropr_core.contracts.records import PlainMessages
from dropr_core.contracts.storage import NewMessage
from dropr_core.model.envelope import EnvelopeTemplate
from dropr_core.model.names import IdMaker
from dropr_core.system.clock import Clock


class Composed(NamedTuple):
    """A message to store, and its body if that is large: to be released when the message is stored."""

    outgoing: NewMessage
    written: Written | None = None


class MessageTemplate:
    """Makes messages on one way. Safe from many threads."""

    def __init__(self, like: NewMessage, envelopes: EnvelopeTemplate, clock: Clock, make_id: IdMaker) -> None:
        """``like``: what they have in common; its id and envelope are nobody's."""
        self._like, self._envelopes, self._clock, self._make_id = like, envelopes, clock, make_id
        self.plain = len(like.peers) == 1 and like.expires_in is None
        """Whether `make_all` may be used."""
        self.make: Callable[[bytes], Composed] = self._maker()
        """``make(body)``: one of them."""

    def _maker(self) -> Callable[[bytes], Composed]:
        # What it needs is at hand, and the constructors of named tuples would cost as much as all the rest.
        new, wall, make_id, fill = tuple.__new__, self._clock.wall, self._make_id, self._envelopes.fill
        _, channel, priority, peers, _, *after = self._like
        before = channel, priority, peers

        def make(body: bytes) -> Composed:
            now = wall()
            identity = make_id(now)
            outgoing = new(NewMessage, (identity, *before, fill(identity, now, body), *after))
            return new(Composed, (outgoing, None))

        return make

    def make_all(self, bodies: Sequence[bytes]) -> PlainMessages:
        """Many at one time, in this order."""
        now = self._clock.wall()
        ids = self._make_id.several(len(bodies), now)
        return PlainMessages(self._like, ids, self._envelopes.fill_all(ids, now, bodies))
