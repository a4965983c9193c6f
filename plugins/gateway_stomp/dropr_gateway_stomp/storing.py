"""What a client sends: parcels for queues and topics, stored all together or not at all.

Owns where a SEND goes, and the temporary queues of its connection. Must not know sockets, frames or subscriptions.
"""

from collections.abc import Callable, Mapping, Sequence

import attrs

from dropr_core.contracts.gateway import Desk, Parcel
from dropr_core.errors import DroprError
from dropr_gateway_stomp import events
from dropr_gateway_stomp.frames import ProtocolError
from dropr_gateway_stomp.mapping import Destination, home_of, parse_destination, rank_of, temporary_channel, to_parcel
from dropr_gateway_stomp.topics import Published, Topics, new_id

_MOST_TEMPORARY = 100
"""Temporary queues of a connection."""
_ANSWER_LIFE = 86_400.0
"""Seconds after which what was sent to a temporary queue, and never read, is dropped."""


class Storing:
    """Of one connection."""

    def __init__(self, desk: Desk, topics: Topics, connection_id: str, wall: Callable[[], float]) -> None:
        self._desk, self._topics, self._id, self._wall = desk, topics, connection_id, wall
        self.temporary: set[str] = set()
        """The channels of its temporary queues."""

    async def store(self, sends: Sequence[events.Send], receipt: str | None) -> Callable[[], None]:
        """Put what is for queues, and for topics that others subscribe to durably, all of it or nothing; what is
        returned publishes to those who listen in this process.
        """
        parcels, topics, published = [], list[tuple[str, Published]](), list[Parcel]()
        try:
            for one in sends:
                target, headers = parse_destination(one.destination), self._with_reply_to(one.headers)
                if target.kind == "topic":
                    published.append(to_parcel(target.name, headers, one.body, self._wall()))
                    topics.append((target.name, self._published(headers, published[-1])))
                else:
                    parcels.append(self._addressed(to_parcel(self._channel(target), headers, one.body, self._wall())))
            if published:
                known = await self._desk.topics(*{one.channel for one in published})
                # What a topic has copied it forgets: a duplicate would be told from others for a while only.
                parcels += [attrs.evolve(one, dedup=None) for one in published if one.channel in known]
            if parcels:
                await self._desk.put(*parcels)
        except DroprError as error:
            raise ProtocolError(f"nothing was stored: {error}", receipt) from None
        except ProtocolError as error:
            error.receipt = error.receipt or receipt
            raise

        def publish() -> None:
            for topic, message in topics:
                self._topics.publish(topic, message)

        return publish

    def _published(self, headers: Mapping[str, str], parcel: Parcel) -> Published:
        if parcel.delay:
            raise ProtocolError("AMQ_SCHEDULED_DELAY works on queues only")
        rank = rank_of(headers)
        return Published(new_id(), parcel.headers, parcel.content_type, parcel.body,
                         rank_of({"priority": "4"}) or 0 if rank is None else rank, self._wall())  # fmt: skip

    def _channel(self, target: Destination) -> str:
        return temporary_channel(self._desk.node, self._id, target.name) if target.kind == "temp-queue" else target.name

    @staticmethod
    def _addressed(parcel: Parcel) -> Parcel:
        """An answer goes to the node of the temporary queue, and not for ever: who asked may have left."""
        home = home_of(parcel.channel)
        if home is None:
            return parcel
        life = (parcel.delay or 0.0) + _ANSWER_LIFE if parcel.expires_in is None else parcel.expires_in
        return attrs.evolve(parcel, to=home, expires_in=life)

    def _with_reply_to(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """A temporary queue is known to its own connection by that name; to others by its channel."""
        text = headers.get("reply-to", "")
        if not text.startswith("/temp-queue/"):
            return headers
        return {**headers, "reply-to": f"/queue/{self.own_temporary(parse_destination(text))}"}

    def own_temporary(self, target: Destination) -> str:
        """The channel of a temporary queue of this connection. Raises ProtocolError if it has too many."""
        channel = self._channel(target)
        self.temporary.add(channel)
        if len(self.temporary) > _MOST_TEMPORARY:
            raise ProtocolError(f"a connection may have {_MOST_TEMPORARY} temporary queues")
        return channel
