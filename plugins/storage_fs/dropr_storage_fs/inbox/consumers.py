"""Consumers go, or die.

Owns `retire` and `reap`: what becomes of the leases of a consumer, by what its lease sheet says. Must not know what
consumers do with messages.
"""

from collections.abc import Collection, Mapping

from dropr_core.contracts.lease_sheets import Mark
from dropr_core.model.message import State
from dropr_core.storage_kit.consumers import LockedConsumers
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.inbox.moves import InboxCommit, Moves
from dropr_storage_fs.inbox.rows import JobRecord
from dropr_storage_fs.inbox.settle import acknowledge
from dropr_storage_fs.inbox.state import InboxState

DEFAULT_ATTEMPTS = 10


class Consumers:
    """The consumers of one inbox."""

    def __init__(self, engine: Engine[InboxState], moves: Moves, locks: LockedConsumers) -> None:
        self._engine, self._moves, self._locks = engine, moves, locks

    def retire(self, consumer: str) -> None:
        """The consumer is gone: its leases end, of what is done as acknowledged, else with the attempt not counted."""
        left = self._locks.left_by(consumer)

        def job(commit: InboxCommit) -> None:
            for one in self._leased_by(commit, {consumer}):
                noted = left.of(one.token[:8], one.number)
                if noted.mark is Mark.DONE:
                    acknowledge(commit, self._moves, one, noted)
                else:
                    self._moves.move(commit, one, State.READY, attempts=one.attempts - 1)

        try:
            self._engine.write(job)
        except BaseException:
            self._locks.abandon(consumer)
            raise
        self._locks.release(consumer)

    def _leased_by(self, commit: InboxCommit, consumers: Collection[str]) -> list[JobRecord]:
        """All that some consumers hold, each with a state of its own."""
        state = commit.state
        for lease in [lease for lease in state.leases.values() if lease.consumer in consumers]:
            self._moves.materialise_leased(commit, lease, set(lease.live))
        return [job for job in state.jobs.values() if job.state is State.LEASED and job.consumer in consumers]

    def reap(self, attempts: Mapping[str, int]) -> tuple[list[str], bool]:
        """End the leases of consumers whose process died; see the contract."""
        names = self._holders()
        dead = self._locks.left_by_all(self._locks.dead(names))
        if not dead:
            self._locks.tidy_once(self._holders)
            return [], bool(names)

        def job(commit: InboxCommit) -> list[str]:
            state = commit.state
            freed: set[str] = set()
            for one in self._leased_by(commit, dead):
                before = {queue.number: queue.tally[State.READY] for queue in state.numbers.values()}
                noted = dead[one.consumer].of(one.token[:8], one.number)
                if noted.mark is Mark.BEGUN:
                    self._blame(commit, one, attempts.get(state.numbers[one.queue].channel, DEFAULT_ATTEMPTS))
                elif noted.mark is Mark.DONE:
                    acknowledge(commit, self._moves, one, noted)
                else:
                    self._moves.move(commit, one, State.READY, attempts=one.attempts - 1)
                freed |= {queue.channel for queue in state.numbers.values()
                          if queue.tally[State.READY] > before[queue.number]}  # fmt: skip
            return sorted(freed)

        freed = self._engine.write(job)
        self._locks.tidy(self._holders)
        return freed, bool(names - dead.keys())

    def _blame(self, commit: InboxCommit, one: JobRecord, limit: int) -> None:
        """It was begun by a consumer that died."""
        reason = f"attempt {one.attempts}: its consumer {one.consumer} died"
        if one.attempts >= limit:
            self._moves.bury(commit, one, reason)
        else:
            self._moves.move(commit, one, State.READY, reason=reason)

    def _holders(self) -> set[str]:
        """The consumers that have leases."""

        def job(state: InboxState) -> set[str]:
            return {lease.consumer for lease in state.leases.values()} | {
                job.consumer for job in state.jobs.values() if job.state is State.LEASED
            }

        return self._engine.read(job)
