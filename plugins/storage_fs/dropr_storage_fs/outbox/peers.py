"""What is kept about peers: whether shipping to them is stopped.

Owns `hold`. Must not know addresses.
"""

from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.outbox.operations import HoldPeer
from dropr_storage_fs.outbox.state import OutboxState


class Peers:
    """Stops and resumes shipping."""

    def __init__(self, engine: Engine[OutboxState]) -> None:
        self._engine = engine

    def hold(self, peer: str, reason: str | None) -> None:
        """Stop shipping to the peer; None: ship again. Durable."""

        def job(commit: Commit[OutboxState]) -> None:
            if reason is not None or peer in commit.state.peers:
                commit.do(HoldPeer(peer, reason is not None, reason or ""))

        self._engine.write_durable(job, reserve=True)
