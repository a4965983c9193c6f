"""Outcome logs: what became of messages, for senders that asked.

Owns `outcomes`. Must not know how outcomes travel.
"""

from dropr_core.model.message import Outcome, first_page
from dropr_core.model.names import StoreId, make_store_id
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.engine.operations import Meta
from dropr_storage_fs.inbox.moves import InboxCommit
from dropr_storage_fs.inbox.outcome_operations import Told
from dropr_storage_fs.inbox.past_outcomes import PastOutcomes
from dropr_storage_fs.inbox.state import InboxState

Rows = tuple[StoreId, list[Outcome]]


class OutcomeLogs:
    """The outcome logs of one inbox."""

    def __init__(self, engine: Engine[InboxState], past: PastOutcomes) -> None:
        self._engine, self._past = engine, past

    def store_id(self) -> StoreId:
        """Names this half and its outcome logs."""
        return self._engine.read(lambda state: state.store)

    def outcomes(self, sender: str, log: StoreId | None, after: int, limit: int, max_bytes: int) -> Rows:
        """The outcome log of a sender after number ``after``; see the contract."""

        def page(state: InboxState) -> Rows:
            return state.store, first_page(self._past.rows(state, sender), limit, max_bytes)

        def look(state: InboxState) -> Rows | None:
            if log == state.store and after > state.told[sender]:
                return None
            nothing = state.told[sender] == state.outcome_numbers[sender]
            return page(state) if nothing or self._engine.journal_is_flushed() else None

        found = self._engine.read(look)
        if found is not None:
            return found

        def job(commit: InboxCommit) -> Rows:
            state = commit.state
            commit.journalled = True
            if log == state.store and after > state.outcome_numbers[sender]:
                commit.do(Meta(make_store_id(), state.number))
            elif log == state.store:
                commit.do(Told(sender, after))
            return page(state)

        return self._engine.write_durable(job, reserve=True)
