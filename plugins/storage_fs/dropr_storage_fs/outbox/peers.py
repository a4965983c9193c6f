"""What is kept about peers: whether shipping to them is stopped.

Owns `hold` and `release`. Must not know addresses.
"""

from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.outbox.operations import HoldPeer
from dropr_storage_fs.outbox.state import OutboxState


class Peers:
    """Stops and resumes shipping."""

    def __init__(self, engine: Engine[OutboxState]) -> None:
        self._engine = engine

    def hold(self, peer: str, reason: str) -> None:
        """Stop shipping to the peer until `release`; its deliveries show as held. Durable."""

        def job(commit: Commit[OutboxState]) -> None:
            commit.do(HoldPeer(peer, True, reason))

        self._engine.write_durable(job, reserve=True)

    def release(self, peer: str) -> None:
        """End `hold`. Durable."""

        def job(commit: Commit[OutboxState]) -> None:
            if peer in commit.state.peers:
                commit.do(HoldPeer(peer, False, ""))

        self._engine.write_durable(job, reserve=True)
