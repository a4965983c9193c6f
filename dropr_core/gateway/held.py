"""A leased message in the hands of a connection.

Owns `HeldMessage`: its facts, its deadline, and the texts by which a lease is found again. How a change reaches the
store is the hub's; must not know dialects.
"""

import asyncio
import base64
import binascii
import struct
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple, Protocol

from dropr_core.contracts.desk import Change
from dropr_core.contracts.storage import Claim
from dropr_core.model import envelope
from dropr_core.model.message import Message, by_proven_sender
from dropr_core.model.names import first_rank, format_id

_HANDLE = struct.Struct(">QI16s8s")


class Keeper(Protocol):
    """Who settles what is held: the hub."""

    loop: asyncio.AbstractEventLoop

    async def settle(self, changes: "tuple[Change, ...]") -> list[bool]:
        """Apply changes in one commit."""
        ...

    def overdue(self, held: "HeldMessage") -> None:
        """Its time is over."""
        ...

    def now(self) -> float:
        """Node time."""
        ...

    def open_body(self, claim: Claim) -> BinaryIO:
        """The body of a claim as a file."""
        ...


class Handle(NamedTuple):
    """What the text of a lease says."""

    number: int
    attempt: int
    id: bytes
    token: bytes


class HeldMessage:
    """See `Held` of the contract."""

    __slots__ = (
        "_body", "_keeper", "_message", "_timer", "claim", "deadline", "hold", "holder", "number", "settled",
    )  # fmt: skip

    def __init__(self, keeper: Keeper, holder: object, claim: Claim, body: bytes | None) -> None:
        """``holder``: the desk in whose hands it is. ``body``: a large one, which was read from its file."""
        self._keeper, self.holder, self.claim, self._body = keeper, holder, claim, body
        self.number = claim.number
        """The job number."""
        self._message: Message | None = None
        self.hold: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.deadline: float | None = None
        self.settled = False

    def __repr__(self) -> str:
        return f"<held {self.id}>"

    # ── facts ────────────────────────────────────────────────────────────────────────────────────

    @property
    def message(self) -> Message:
        """The facts that the sender fixed."""
        if self._message is None:
            self._message = by_proven_sender(envelope.header_of(self.claim.envelope), self.claim.sender)
        return self._message

    @property
    def id(self) -> str:
        """The id as text."""
        return format_id(self.claim.id)

    @property
    def handle(self) -> str:
        """The text by which this lease is found again."""
        claim = self.claim
        packed = _HANDLE.pack(claim.number, claim.attempt, claim.id, claim.token[:8].ljust(8, b"\0"))
        return base64.urlsafe_b64encode(packed).decode()

    @property
    def channel(self) -> str:
        """Where it was waiting."""
        return self.claim.channel

    @property
    def sender(self) -> str:
        """The peer that brought it, or this node."""
        return self.claim.sender

    @property
    def rank(self) -> int:
        """Its priority of 32 bits."""
        return rank_of(self.claim.rank, self.claim.priority)

    @property
    def attempt(self) -> int:
        """1 at the first try."""
        return self.claim.attempt

    @property
    def age(self) -> float:
        """Seconds since it entered the queue."""
        return max(0.0, self._keeper.now() - self.claim.arrived)

    @property
    def created_at(self) -> float:
        """When it was sent, by its sender's wall clock."""
        return self.message.created_at

    @property
    def body(self) -> bytes:
        """As it was put."""
        if self._body is not None:
            return self._body
        if envelope.reference_of(self.claim.envelope) is None:
            return envelope.body_of(self.claim.envelope)
        with self.open() as file:  # a gateway that takes large ones as files asked for one as bytes
            return file.read()

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return envelope.body_size(self.claim.envelope)

    def open(self) -> BinaryIO:
        """The body as a file."""
        return self._keeper.open_body(self.claim)

    @property
    def headers(self) -> Mapping[str, str]:
        """As they were put."""
        return self.message.headers

    @property
    def content_type(self) -> str:
        """As it was put."""
        return self.message.content_type

    # ── its time ─────────────────────────────────────────────────────────────────────────────────

    def begin(self, hold: float | None) -> None:
        """Its time begins now."""
        self.stop_clock()
        self.hold = hold
        if hold is not None:
            loop = self._keeper.loop
            self.deadline = loop.time() + hold
            self._timer = loop.call_at(self.deadline, self._keeper.overdue, self)

    def stop_clock(self) -> None:
        """It is being settled."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def touch(self, hold: float | None = None) -> bool:
        """Begin the time anew."""
        if self.settled:
            return False
        self.begin(self.hold if hold is None else hold)
        return True

    # ── how it ends ──────────────────────────────────────────────────────────────────────────────

    def acked(self, result: bytes | None = None, result_type: str = "") -> Change:
        """The change that `ack` makes."""
        return Change(self, "ack", result, result_type)

    def released(
        self, delay: float | None = 0.0, *, rank: int | None = None, counted: bool = True, reason: str = ""
    ) -> Change:
        """The change that `release` makes."""
        return Change(self, "release", delay=delay, rank=rank, counted=counted, reason=reason)

    def buried(self, reason: str = "", *, rank: int | None = None) -> Change:
        """The change that `bury` makes."""
        return Change(self, "bury", rank=rank, reason=reason)

    async def ack(self, result: bytes | None = None, result_type: str = "") -> bool:
        """Done."""
        return (await self._keeper.settle((self.acked(result, result_type),)))[0]

    async def release(
        self, delay: float | None = 0.0, *, rank: int | None = None, counted: bool = True, reason: str = ""
    ) -> bool:
        """Back to the queue."""
        return (await self._keeper.settle((self.released(delay, rank=rank, counted=counted, reason=reason),)))[0]

    async def bury(self, reason: str = "", *, rank: int | None = None) -> bool:
        """Into the dead letters."""
        return (await self._keeper.settle((self.buried(reason, rank=rank),)))[0]


def read_handle(text: str) -> Handle | None:
    """What a `HeldMessage.handle` says; None if it is none."""
    try:
        return Handle(*_HANDLE.unpack(base64.urlsafe_b64decode(text.encode("ascii"))))
    except (ValueError, binascii.Error, struct.error):
        return None


def rank_of(rank: int, priority: int) -> int:
    """The rank of a message as a storage gives it; where it gives none, the first of the priority."""
    return first_rank(priority) if rank < 0 else rank
