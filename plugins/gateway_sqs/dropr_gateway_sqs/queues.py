"""Which queues there are, and what each is set to: kept durably in one small document of the node.

Owns `Queues`. A queue is a channel that somebody created here, or one that the node has anyway. All machines of a node
see the same ones. Must not know messages, nor where documents stand.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import attrs
import msgspec

from dropr_core.errors import ConfigError, StoreCorrupt
from dropr_core.system.shared_document import Documents, Form
from dropr_gateway_sqs.failures import SqsError
from dropr_gateway_sqs.names import FIFO
from dropr_gateway_sqs.settings import Settings

T = TypeVar("T")

NAME = "sqs-queues.json"
MOST = 10_000
"""Queues that can be created."""
MOST_TAGS = 50
_ADVICE = (
    "it holds the queues that SQS clients created; put it back from a backup, or move it away: then their messages are "
    "still there, and their attributes are lost. If a newer dropr-gateway-sqs wrote it, install that one"
)


@attrs.frozen
class Queue:
    """One queue."""

    name: str
    settings: Settings
    tags: Mapping[str, str] = attrs.field(factory=dict)
    created: int = 0
    """Seconds since the epoch."""
    modified: int = 0

    @property
    def fifo(self) -> bool:
        """Whether its groups are handed out in order."""
        return self.settings.fifo


class _Kept(msgspec.Struct):
    """A queue in the document."""

    attributes: dict[str, str]
    tags: dict[str, str]
    created: int
    modified: int


class _Document(msgspec.Struct):
    version: int
    queues: dict[str, _Kept]
    deleted: list[str] = []
    """Channels of the node that somebody deleted here, until they are created anew."""


@attrs.define
class Known:
    """What the document says."""

    queues: dict[str, Queue] = attrs.field(factory=dict)
    deleted: set[str] = attrs.field(factory=set)
    """Names that somebody deleted and nobody created anew; at most MOST."""


def untouched(name: str) -> Queue:
    """A queue that nobody has set to anything."""
    return Queue(name, Settings(fifo=name.endswith(FIFO)))


class Queues:
    """Those that were created or set at this door, on whatever machine. Changes go one after another, and are on stable
    storage when they return. Every method raises StoreError.
    """

    def __init__(self, documents: Documents, wall: Callable[[], float]) -> None:
        """Raises ConfigError if the document cannot be read."""
        self._document = documents.document(NAME, Form(_decode, _encode, Known, _ADVICE))
        self._wall = wall
        try:
            self._document.look()
        except StoreCorrupt as error:
            raise ConfigError([str(error)]) from None

    def get(self, name: str) -> Queue | None:
        """One of them, as it was some seconds ago if another machine has changed it. Cheap enough for each request, as
        is `deleted`.
        """
        return self._document.look().queues.get(name)

    async def get_now(self, name: str) -> Queue | None:
        """The same, as it is now, whatever that costs."""
        return (await asyncio.to_thread(lambda: self._document.look(now=True))).queues.get(name)

    @property
    def deleted(self) -> set[str]:
        """Names that somebody deleted and nobody created anew."""
        return self._document.look().deleted

    def names(self) -> Iterable[str]:
        """All of them."""
        return self._document.look().queues.keys()

    def sources_of(self, name: str) -> list[str]:
        """The queues whose dead-letter queue it is."""
        found = []
        for one in self._document.look().queues.values():
            redrive = one.settings.redrive
            if redrive is not None and redrive.target == name:
                found.append(one.name)
        return sorted(found)

    async def create(self, queue: Queue) -> Queue:
        """Add one, created now; one that is there stays as it is."""

        def create() -> Queue:
            found = self._document.look(now=True).queues.get(queue.name)
            return found or self._change(lambda known: self._add(known, queue))

        return await asyncio.to_thread(create)

    def _add(self, known: Known, queue: Queue) -> Queue:
        found = known.queues.get(queue.name)
        if found is None:
            if len(known.queues) >= MOST:
                raise SqsError("OverLimit", f"There are {MOST} queues already; delete some.")
            now = int(self._wall())
            found = known.queues[queue.name] = attrs.evolve(queue, created=now, modified=now)
            known.deleted.discard(queue.name)
        return found

    async def change(self, name: str, change: Callable[[Queue], Queue]) -> None:
        """Replace one by what ``change`` makes of it; that is called in a thread."""

        def replace(known: Known) -> None:
            found = known.queues.get(name) or untouched(name)
            now = int(self._wall())
            known.queues[name] = attrs.evolve(change(found), created=found.created or now, modified=now)
            known.deleted.discard(name)

        await asyncio.to_thread(self._change, replace)

    async def remove(self, name: str) -> None:
        """Forget one."""

        def forget(known: Known) -> None:
            known.queues.pop(name, None)
            known.deleted = {*sorted(known.deleted)[-MOST + 1 :], name}

        await asyncio.to_thread(self._change, forget)

    def _change(self, change: Callable[[Known], T]) -> T:
        with self._document.changing() as known:
            return change(known)


def _decode(document: Any) -> Known:
    kept = msgspec.convert(document, _Document)  # a ValidationError is a ValueError
    if kept.version != 1:
        raise ValueError(f"version {kept.version}")
    queues = {
        name: Queue(name, Settings(name.endswith(FIFO), one.attributes), one.tags, one.created, one.modified)
        for name, one in kept.queues.items()
    }
    return Known(queues, set(kept.deleted))


def _encode(known: Known) -> object:
    queues = {
        name: _Kept(dict(one.settings.given), dict(one.tags), one.created, one.modified)
        for name, one in known.queues.items()
    }
    return msgspec.to_builtins(_Document(1, queues, sorted(known.deleted)))
