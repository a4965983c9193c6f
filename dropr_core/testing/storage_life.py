"""One random life of a storage beside that of the reference model, and the judgement on both.

Owns what is kept along the way and two judgements: the storage shows what the model shows, and the
history keeps the invariants of checker.py. Must not know what the life consists of (storage_machine.py).
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import attrs
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant

from dropr_core.builtin.memory import MemoryStorage
from dropr_core.contracts.storage import Arrival, Claim, NewMessage, Selection, Storage
from dropr_core.model.message import State
from dropr_core.model.names import Lane, MessageId
from dropr_core.system.clock import Clock, FakeClock
from dropr_core.testing.builders import PEER, SENDER, make_context
from dropr_core.testing.checker import Event, History, check, digest
from dropr_core.testing.contract import shut

Open = Callable[[Path, Clock], Storage]
Kill = Callable[[Storage, str], None]

CHANNELS = ["orders", "b/2"]
LANES = [Lane(PEER, channel, priority) for channel in CHANNELS for priority in (1, 5)]
LIFE = 5000.0
GONE = frozenset({State.BURIED, State.EXPIRED})


@attrs.frozen
class Fact:
    """What a message is, beside what the outbox is told."""

    message: NewMessage
    key: str | None
    delay: float | None
    rank: int | None = None


@attrs.define(eq=False)
class Lease:
    """The same lease in the storage and in the model."""

    claims: tuple[Claim, Claim]
    worker: int


class StorageLife(RuleBasedStateMachine):
    """Two stores, one clock, one history."""

    open_storage: ClassVar[Open]
    kill: ClassVar[Kill | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="dropr-machine-"))
        (self.directory / "model").mkdir()
        (self.directory / "data").mkdir(mode=0o700)
        self.clock = FakeClock()
        self.storage = type(self).open_storage(self.directory / "data", self.clock)
        self.model = MemoryStorage(make_context(self.directory / "model", self.clock))
        self.history = History()
        self.facts: dict[MessageId, Fact] = {}
        self.order: list[MessageId] = []
        self.workers = [(self.storage.inbox.register("w"), self.model.inbox.register("w")) for _ in range(3)]
        self.leases: list[Lease] = []
        self.old: list[Lease] = []
        self.pushes: list[tuple[Arrival, Arrival]] = []
        self.seen: dict[int, State] = {}
        self.calls = 0

    @property
    def both(self) -> tuple[Storage, Storage]:
        """The storage under test and the model."""
        return self.storage, self.model

    def same(self, what: str, act: Callable[[Storage], Any]) -> Any:
        """Do it to both; the results must be equal."""
        real, modelled = act(self.storage), act(self.model)
        assert real == modelled, f"{what}: storage {real!r}, model {modelled!r}"
        return real

    # ── judgement ────────────────────────────────────────────────────────────────────────────────

    def _note(self, kind: Any, identity: bytes = b"", **fields: Any) -> None:
        self.history.note(Event(kind, identity, **fields))

    def _entered(self, lane: Lane, identity: MessageId, place: int, *, flagged: bool) -> None:
        fact = self.facts[identity]
        self._note(
            "entered", identity, who=SENDER, digest=digest(fact.message.envelope), flagged=flagged, place=place,
            key=None if fact.key is None else f"{lane.channel}:{fact.key}",
            lane=f"{self.storage.outbox.store_id.hex()}{lane}",
        )  # fmt: skip

    def _listed(self) -> set[MessageId]:
        return {delivery.id for _, delivery in self.storage.outbox.scan(Selection(), limit=10_000)}

    @invariant()
    def look(self) -> None:
        """The storage shows what the model shows; what came to an end is noted."""
        self.same("outbox", lambda s: sorted(
            (d.id, str(d.state), d.sequence if d.state is State.QUEUED else 0, d.possible_duplicate)
            for _, d in s.outbox.scan(Selection(), limit=10_000)
            # Accepted is the end without a receipt: it may be listed still, or be forgotten.
            if d.receipt or d.state is not State.ACCEPTED))  # fmt: skip
        self.same("inbox", lambda s: sorted(
            (i.id, "waiting" if i.state in {State.READY, State.DELAYED} else str(i.state), i.attempts)
            for i in s.inbox.scan(Selection(), limit=10_000)))  # fmt: skip
        for info in self.storage.inbox.scan(Selection(), limit=10_000):
            was = self.seen.get(info.number)
            if info.state in GONE and was not in GONE:
                self._note("buried", info.id)
            elif was in GONE and info.state not in GONE:
                self._note("kicked", info.id)
            self.seen[info.number] = info.state
        for identity in self._listed():
            data = self.storage.outbox.envelope(identity)  # dropped once it ended well
            self._note("listed", identity, digest=b"" if data is None else digest(data))
        self._note("looked")

    def teardown(self) -> None:
        """Check the whole history, then clean up."""
        try:
            assert check(self.history) == []
        finally:
            with ExitStack() as stack:
                stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
                for storage in self.both:
                    stack.callback(shut, storage)


def machine_settings(*, shrink: bool = True, strength: int = 1, examples: int = 30) -> settings:
    """So many runs of 30 steps, always the same; ``strength``: more and others; with DROPR_CAMPAIGN=1 10,000 of 50."""
    phases = set(Phase) - {Phase.explain} - (set() if shrink else {Phase.shrink})
    campaign = os.environ.get("DROPR_CAMPAIGN") == "1"
    return settings(
        max_examples=10_000 if campaign else examples * strength,
        stateful_step_count=50 if campaign else 30,
        derandomize=not campaign and strength == 1,
        deadline=None,
        database=None,
        phases=tuple(phase for phase in Phase if phase in phases),
        suppress_health_check=list(HealthCheck),
    )


def ready_in(storage: Storage) -> set[tuple[int, str]]:
    """Number and channel of each message that is ready."""
    wanted = Selection(states=frozenset({State.READY}))
    return {(info.number, info.channel) for info in storage.inbox.scan(wanted, limit=10_000)}


__all__ = ["CHANNELS", "LANES", "LIFE", "Fact", "Kill", "Lease", "Open", "StorageLife", "machine_settings", "ready_in"]
