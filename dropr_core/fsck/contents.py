"""The part of a check that every store has in common: is each kept message readable, and its large body there.

Owns the walk through both halves and through the files of `bodies/store.py`, page by page, and what a repair does
with what cannot be read: the message becomes a dead letter with the reason, the bytes are moved aside. Must
not know files of a storage (`Storage.check`), nor the command line.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

from dropr_core.bodies.chunk_digest import LeafHash
from dropr_core.bodies.files import PIECE, trailer_of
from dropr_core.bodies.store import Bodies, name_of
from dropr_core.contracts.storage import Delivery, Finding, Inbox, JobInfo, Outbox, Selection
from dropr_core.errors import DroprError
from dropr_core.model.envelope import Reference, decode, reference_of
from dropr_core.model.message import State
from dropr_core.model.names import Lane, MessageId, format_id
from dropr_core.model.states import ENDED, SETTLED
from dropr_core.system.files import sync_directory
from dropr_core.system.ownership import make_private_directory

PAGE = 500
TELL_EVERY = 10.0
"""Seconds between two words about how far a long check is."""
REMEMBERED = 1000
"""Bodies whose check is remembered: a multicast has one for several deliveries."""

ASIDE = "damaged"
"""Directory in ``bodies/`` for what a repair moved away; no sweep looks there."""

TORN = (KeyError, IndexError, TypeError, ValueError, AttributeError)
"""What a storage may meet whose own tables contradict each other."""


class ContentCheck:
    """One walk. ``say`` is told now and then how far it is; ``lost``: whether the storage itself lost something."""

    def __init__(
        self, outbox: Outbox, inbox: Inbox, bodies: Bodies, *, repair: bool, lost: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._outbox, self._inbox, self._bodies = outbox, inbox, bodies
        self._repair, self._lost, self._say = repair, lost, say
        self._told = time.monotonic()
        self._known: OrderedDict[Path, str] = OrderedDict()
        self._kept: dict[str, int] = {}
        self.messages = 0
        """How many were looked at."""

    def run(self) -> Iterator[Finding]:
        """Every finding, each after its repair."""
        told = self._lost and not self._repair  # what the storage told of is not a second thing to be repaired
        for half, walk in (("outbox", self._walk_outbox), ("inbox", self._walk_inbox)):
            try:
                yield from walk()
            except (DroprError, *TORN) as error:
                self._lost = True
                why = str(error) if isinstance(error, DroprError) else f"{type(error).__name__}: {error}"
                yield Finding(
                    half, "note" if told else "damage", f"the {half}",
                    f"its messages could not be read to the end ({why}); what is above has to be mended first",
                )  # fmt: skip
        for (half, what), number in ((tuple(key.split("\0")), number) for key, number in self._kept.items()):
            yield Finding(half, "note", f"{number} of {what}", "cannot be read; it is kept as it is, nobody needs it")
        yield from self._walk_bodies()

    def _tell(self, what: str) -> None:
        if time.monotonic() - self._told > TELL_EVERY:
            self._told = time.monotonic()
            self._say(what)

    # ── messages ─────────────────────────────────────────────────────────────────────────────────

    def _walk_outbox(self) -> Iterator[Finding]:
        cursor = (0, 0)
        while page := self._outbox.scan(Selection(), cursor, PAGE):
            for cursor, delivery in page:  # noqa: B007
                self.messages += 1
                yield from self._delivery(delivery)
            self._tell(f"looked at {self.messages} messages")

    def _delivery(self, delivery: Delivery) -> Iterator[Finding]:
        data = self._outbox.envelope(delivery.id)
        if data is None and delivery.state in ENDED:
            return
        wrong = self._wrong(delivery.id, data, self._bodies.directory / "sent")
        if not wrong:
            return
        if delivery.state in ENDED or delivery.state is State.ACCEPTED:
            self._count("outbox", "the ended messages" if delivery.state in ENDED else "the messages that the peer has")
            return
        done = False
        if self._repair:
            lane = Lane(delivery.peer, delivery.channel, delivery.priority)
            self._outbox.dead_letter(lane, delivery.sequence, f"fsck: {wrong}")
            done = any(
                one.peer == delivery.peer and one.state is State.DEAD for one in self._outbox.status(delivery.id)
            )
        yield Finding(
            "outbox", "damage", f"message {format_id(delivery.id)} to {delivery.peer} on {delivery.channel}",
            f"{wrong}; the peer would refuse it",
            "lists it as dead with the reason, so that its lane goes on; its bytes are kept", done,
        )  # fmt: skip

    def _walk_inbox(self) -> Iterator[Finding]:
        cursor = 0
        while page := self._inbox.scan(Selection(), cursor, PAGE):
            for job in page:
                self.messages += 1
                yield from self._job(job)
            cursor = page[-1].number
            self._tell(f"looked at {self.messages} messages")

    def _job(self, job: JobInfo) -> Iterator[Finding]:
        data = self._inbox.envelope(job.id)
        if data is None and job.state in SETTLED:
            return
        wrong = self._wrong(job.id, data, self._bodies.directory / "come" / job.sender.encode().hex())
        if not wrong:
            return
        if job.state in SETTLED:
            self._count("inbox", "the ended messages")
            return
        done = False
        if self._repair:
            if job.state is State.LEASED:  # nobody works now: whoever had it is dead
                self._inbox.reap({})
            done = self._inbox.bury(job.id, f"fsck: {wrong}")
        yield Finding(
            "inbox", "damage", f"message {format_id(job.id)} from {job.sender} on {job.channel}",
            f"{wrong}; every attempt to work on it would fail",
            "buries it with the reason (its sender is told, if it asked); its bytes are kept", done,
        )  # fmt: skip

    def _count(self, half: str, what: str) -> None:
        key = f"{half}\0{what}"
        self._kept[key] = self._kept.get(key, 0) + 1

    def _wrong(self, identity: MessageId, data: bytes | None, directory: Path) -> str:
        """What is wrong with a message; empty: nothing."""
        if data is None:
            return "its content is missing"
        try:
            message = decode(data).message
        except DroprError as error:
            return f"its content cannot be read ({error})"
        if message.id != identity:
            return f"its content is that of message {format_id(message.id)}"
        outside = reference_of(data)
        return "" if outside is None else self._body(directory / name_of(identity, outside), outside)

    # ── large bodies ─────────────────────────────────────────────────────────────────────────────

    def _body(self, path: Path, reference: Reference) -> str:
        """What is wrong with the file of a body; with a repair, a damaged one goes aside."""
        if path not in self._known:
            self._known[path] = self._look(path, reference)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return self._known[path]

    def _look(self, path: Path, reference: Reference) -> str:
        digest, left = LeafHash(), reference.size
        trailer = trailer_of(reference) if path.parent.name == "sent" else 0
        try:
            size = path.stat().st_size
            with path.open("rb", buffering=0) as file:
                while left and (piece := file.read(min(PIECE, left))):
                    digest.update(piece)
                    left -= len(piece)
                    self._tell(f"reading {path}, {left} of {reference.size} bytes left")
                behind = file.read() if not left else b""
            sound = not left and digest.digest() == reference.digest
            if sound and behind == digest.leaves()[:trailer]:
                return ""
            if sound and trailer and self._repair:
                with path.open("r+b", buffering=0) as file:
                    os.pwrite(file.fileno(), digest.leaves(), reference.size)
                    os.ftruncate(file.fileno(), reference.size + trailer)
                    os.fsync(file.fileno())
                return ""
        except FileNotFoundError:
            return f"its body, the file {path}, is missing"
        except OSError as error:
            return f"its body, the file {path}, cannot be read ({error.strerror})"
        right = reference.size + trailer
        why = f"has {size} bytes, not {right}" if size != right else "has another digest"
        where = f", moved to {self._aside(path)}" if self._repair else ""
        return f"its body, the file {path}, is damaged: it {why}{where}"

    def _aside(self, path: Path) -> Path:
        """Move a file where no sweep takes it; returns its new place."""
        directory = self._bodies.directory / ASIDE
        make_private_directory(directory)
        place, number = directory / path.name, 1
        while place.exists():
            number += 1
            place = directory / f"{path.name}-{number}"
        path.replace(place)
        sync_directory(directory)
        sync_directory(path.parent)
        return place

    def _walk_bodies(self) -> Iterator[Finding]:
        """Files that no message refers to."""
        folders: list[tuple[Path, Callable[[MessageId], bytes | None]]]
        folders = [(self._bodies.directory / "sent", self._outbox.envelope)]
        come = self._bodies.directory / "come"
        if come.is_dir():
            folders += [(path, self._inbox.envelope) for path in sorted(come.iterdir()) if path.is_dir()]
        for folder, envelope in folders:
            if folder.is_dir():
                try:
                    yield from self._folder(folder, envelope)
                except (DroprError, OSError, *TORN) as error:
                    yield Finding("bodies", "damage", str(folder), f"could not be looked through ({error})")

    def _folder(self, folder: Path, envelope: Callable[[MessageId], bytes | None]) -> Iterator[Finding]:
        parts = orphans = size = moved = 0
        for path in folder.iterdir():
            self._tell(f"looking through {folder}")
            if path.suffix:
                parts += 1
            elif not _needed(path.name, envelope):
                orphans, size = orphans + 1, size + path.stat().st_size
                if self._repair and self._lost:
                    self._aside(path)
                    moved += 1
        if parts:
            yield Finding(
                "bodies", "note", str(folder), f"{parts} unfinished files: bodies on their way, or left by a process "
                "that died; the daemon goes on with them or removes them within a day",
            )  # fmt: skip
        if orphans and self._lost:
            yield Finding(
                "bodies", "damage", str(folder), f"{orphans} bodies ({size} bytes) without a message; as messages were "
                "lost, they may be theirs, and the daemon would remove them",
                f"moves them to {self._bodies.directory / ASIDE}", moved == orphans,
            )  # fmt: skip
        elif orphans:
            yield Finding(
                "bodies", "note", str(folder), f"{orphans} bodies ({size} bytes) without a message: just sent or "
                "arrived, or their messages ended; the daemon removes what nobody needs",
            )  # fmt: skip


def _needed(name: str, envelope: Callable[[MessageId], bytes | None]) -> bool:
    """Whether a kept message refers to the file ``name``."""
    try:
        identity = MessageId(bytes.fromhex(name.partition("-")[0]))
    except ValueError:
        return False
    data = envelope(identity)
    if not data or len(data) < 2:
        return False
    outside = reference_of(data)
    return outside is not None and name_of(identity, outside) == name
