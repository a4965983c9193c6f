"""Which queues there are, and what each is set to: kept durably in one small file.

Owns `Queues`. A queue is a channel that somebody created here, or one that the node has anyway. Must not know messages.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import attrs
import msgspec

from dropr_core.errors import ConfigError
from dropr_core.system.files import replace_file
from dropr_gateway_sqs.failures import SqsError
from dropr_gateway_sqs.names import FIFO
from dropr_gateway_sqs.settings import Settings

MOST = 10_000
"""Queues that can be created."""
MOST_TAGS = 50


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
    """A queue in the file."""

    attributes: dict[str, str]
    tags: dict[str, str]
    created: int
    modified: int


class _File(msgspec.Struct):
    version: int
    queues: dict[str, _Kept]
    deleted: list[str] = []
    """Channels of the node that somebody deleted here, until they are created anew."""


def untouched(name: str) -> Queue:
    """A queue that nobody has set to anything."""
    return Queue(name, Settings(fifo=name.endswith(FIFO)))


class Queues:
    """Those that were created or set here. Changes go one after another, and are on stable storage when they return."""

    def __init__(self, path: Path, wall: Callable[[], float]) -> None:
        """Raises ConfigError if the file cannot be read."""
        self._path, self._wall = path, wall
        self._queues: dict[str, Queue] = {}
        self.deleted: frozenset[str] = frozenset()
        """Names that somebody deleted and nobody created anew; at most MOST."""
        self._load()
        self._lock = asyncio.Lock()

    def _load(self) -> None:
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_File)
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as error:  # a ValidationError is one
            raise ConfigError(
                f"{self._path} holds the queues that SQS clients created, and cannot be read: {error}; put it back "
                "from a backup, or move it away: then their messages are still there, and their attributes are lost"
            ) from None
        if kept.version != 1:
            raise ConfigError(f"{self._path} was written by a newer dropr-gateway-sqs; install that one")
        self.deleted = frozenset(kept.deleted)
        self._queues = {
            name: Queue(name, Settings(name.endswith(FIFO), one.attributes), one.tags, one.created, one.modified)
            for name, one in kept.queues.items()
        }

    def get(self, name: str) -> Queue | None:
        """One of them."""
        return self._queues.get(name)

    def names(self) -> Iterable[str]:
        """All of them."""
        return self._queues.keys()

    def sources_of(self, name: str) -> list[str]:
        """The queues whose dead-letter queue it is."""
        found = []
        for one in self._queues.values():
            redrive = one.settings.redrive
            if redrive is not None and redrive.target == name:
                found.append(one.name)
        return sorted(found)

    async def create(self, queue: Queue) -> Queue:
        """Add one, created now; one that is there stays as it is."""
        async with self._lock:
            found = self._queues.get(queue.name)
            if found is None:
                if len(self._queues) >= MOST:
                    raise SqsError("OverLimit", f"There are {MOST} queues already; delete some.")
                now = int(self._wall())
                found = attrs.evolve(queue, created=now, modified=now)
                await self._keep({**self._queues, queue.name: found}, self.deleted - {queue.name})
            return found

    async def change(self, name: str, change: Callable[[Queue], Queue]) -> None:
        """Replace one by what ``change`` makes of it."""
        async with self._lock:
            found = self._queues.get(name) or untouched(name)
            now = int(self._wall())
            changed = attrs.evolve(change(found), created=found.created or now, modified=now)
            await self._keep({**self._queues, name: changed}, self.deleted - {name})

    async def remove(self, name: str) -> None:
        """Forget one."""
        async with self._lock:
            left = {other: one for other, one in self._queues.items() if other != name}
            await self._keep(left, frozenset([*sorted(self.deleted)[-MOST + 1 :], name]))

    async def _keep(self, queues: dict[str, Queue], deleted: frozenset[str]) -> None:
        file = _File(
            1,
            {
                name: _Kept(dict(one.settings.given), dict(one.tags), one.created, one.modified)
                for name, one in queues.items()
            },
            sorted(deleted),
        )
        try:
            await asyncio.to_thread(replace_file, self._path, msgspec.json.encode(file), durable=True)
        except OSError as error:
            raise SqsError(
                "ServiceUnavailable",
                f"The queue's attributes cannot be stored: {error.strerror}; nothing was changed.",
                status=503,
            ) from None
        self._queues, self.deleted = queues, deleted
