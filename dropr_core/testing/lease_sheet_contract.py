"""Contract tests of an inbox whose consumers have lease sheets: what is made of the sheet of a dead one.

Owns one test for each sentence of contracts/lease_sheets.py and of `Inbox.reap` and `retire` about them, for what the
storage does and for what the contract says by default. A storage without sheets is asked for nothing here. Must not
know any storage by name.
"""

from collections.abc import Callable
from typing import Any

import pytest

from dropr_core.contracts.lease_sheets import LeaseSheet
from dropr_core.contracts.storage import Ack, Claim, Inbox, Release, Storage
from dropr_core.errors import Closed
from dropr_core.model.message import State
from dropr_core.testing.bench import Bench, StorageTests
from dropr_core.testing.builders import CHANNEL, SENDER, Source, Worker, job
from dropr_core.testing.contract import shut
from dropr_core.testing.essentials import Essentials
from dropr_core.testing.forks import Child, Say

KEEP = {CHANNEL: 0.0}


class Holder(Worker):
    """A consumer that notes on its sheet what it does."""

    def __init__(self, inbox: Inbox) -> None:
        super().__init__(inbox)
        assert inbox.sheets is not None
        sheet = inbox.sheets.sheet(self.name)
        assert sheet is not None, "no room for a lease sheet"
        self.sheet: LeaseSheet = sheet
        self.lines: dict[int, int] = {}

    def hold(self, limit: int = 100, keep: float = 0.0) -> list[Claim]:
        """Claim, and note what was claimed."""
        self.sheet.claiming(begins=True)
        claims = self.claim(limit)
        lines = self.sheet.hold(claims, {CHANNEL: keep})
        self.lines.update(zip([claim.number for claim in claims], lines, strict=True))
        self.sheet.claiming(begins=False)
        return claims

    def begin(self, *claims: Claim) -> None:
        """They are handed out."""
        for claim in claims:
            self.sheet.begin(self.lines[claim.number])

    def done(self, *claims: Claim) -> None:
        """They were handled."""
        for claim in claims:
            self.begin(claim)
            self.sheet.done(self.lines[claim.number])


class LeaseSheetContract(StorageTests):
    """What a storage with lease sheets must make of them."""

    @pytest.fixture
    def sheeted(self, storage: Storage) -> Storage:
        """A fresh storage; skips the test where it has no sheets."""
        if storage.inbox.sheets is None:
            pytest.skip("this storage has no lease sheets, and says so")
        return storage

    @pytest.fixture(params=["own", "default"])
    def reaper(self, request: pytest.FixtureRequest, sheeted: Storage) -> Inbox:
        """The inbox as it is, and as the contract is by default: both must find the same."""
        return sheeted.inbox if request.param == "own" else Essentials(sheeted).inbox

    @staticmethod
    def again(inbox: Inbox) -> list[tuple[bytes, int]]:
        """Envelope and attempt of all that can be claimed."""
        return [(claim.envelope, claim.attempt) for claim in Worker(inbox).claim()]

    # ── the dead ─────────────────────────────────────────────────────────────────────────────────

    def test_a_dead_consumer_is_settled_by_its_sheet(self, sheeted: Storage, reaper: Inbox, bench: Bench) -> None:
        """Done is done, begun counts an attempt, and what was only held comes back as if never leased, in its order."""
        Source(sheeted.inbox).fill(6)
        holder = Holder(sheeted.inbox)
        claims = holder.hold()
        holder.done(claims[0], claims[2])
        holder.begin(claims[1])
        bench.kill(sheeted, holder.name)
        assert reaper.reap({}) == ([CHANNEL], False)
        assert self.again(sheeted.inbox) == [
            (b"envelope 1", 2), (b"envelope 3", 1), (b"envelope 4", 1), (b"envelope 5", 1),
        ]  # fmt: skip
        assert sheeted.inbox.counts()[CHANNEL]["processed"] == 2
        assert sheeted.inbox.settle([Ack(claims[0]), Ack(claims[1]), Ack(claims[3])]) == [False] * 3

    def test_what_is_withdrawn_is_no_attempt(self, sheeted: Storage, reaper: Inbox, bench: Bench) -> None:
        """A process that has to end in the middle of a message says so: it comes back as if never leased, what is done
        stays done.
        """
        Source(sheeted.inbox).fill(3)
        holder = Holder(sheeted.inbox)
        claims = holder.hold()
        holder.begin(claims[0])
        holder.done(claims[1])
        for claim in claims:
            holder.sheet.withdraw(holder.lines[claim.number])
        bench.kill(sheeted, holder.name)
        reaper.reap({})
        assert self.again(sheeted.inbox) == [(b"envelope 0", 1), (b"envelope 2", 1)]

    def test_a_message_is_blamed_alone(self, sheeted: Storage, reaper: Inbox, bench: Bench) -> None:
        """A message that kills its consumers is buried at its limit; its neighbours, which were held each time, are
        where they were.
        """
        ids = Source(sheeted.inbox).fill(3)
        for _ in range(2):
            holder = Holder(sheeted.inbox)
            holder.begin(holder.hold()[0])
            bench.kill(sheeted, holder.name)
            reaper.reap({CHANNEL: 2})
        info = sheeted.inbox.status(ids[0])
        assert info is not None
        assert info.state is State.BURIED
        assert self.again(sheeted.inbox) == [(b"envelope 1", 1), (b"envelope 2", 1)]

    def test_a_result_on_the_sheet_goes_home(self, sheeted: Storage, reaper: Inbox, bench: Bench) -> None:
        """Who asked for a receipt gets it of a message that a dead consumer had done, with the result; once."""
        ids = Source(sheeted.inbox).fill(3, receipt=True)
        holder = Holder(sheeted.inbox)
        plain, result, reason = holder.hold()
        holder.done(plain)
        holder.begin(result, reason)
        assert holder.sheet.done_with(holder.lines[result.number], Ack(result, b"42", "text/plain"))
        assert holder.sheet.done_with(holder.lines[reason.number], Ack(reason, reason="no result: it is too big"))
        bench.kill(sheeted, holder.name)
        reaper.reap({})
        reaper.reap({})
        _, rows = sheeted.inbox.outcomes(SENDER, None, 0, 10)
        assert sorted((ids.index(row.id), row.state, row.result, row.content_type, row.reason) for row in rows) == [
            (0, State.PROCESSED, None, "", ""),
            (1, State.PROCESSED, b"42", "text/plain", ""),
            (2, State.PROCESSED, None, "", "no result: it is too big"),
        ]

    def test_what_the_channel_keeps_is_kept(self, sheeted: Storage, reaper: Inbox, bench: Bench) -> None:
        """Done messages of a channel with a retention stay readable when a reaper settles them, too."""
        (only,) = Source(sheeted.inbox).fill(1)
        holder = Holder(sheeted.inbox)
        holder.done(*holder.hold(keep=60.0))
        bench.kill(sheeted, holder.name)
        reaper.reap({})
        info = sheeted.inbox.status(only)
        assert info is not None
        assert info.state is State.DONE
        assert sheeted.inbox.envelope(only) == b"envelope 0"

    def test_what_is_done_frees_its_key(self, sheeted: Storage, reaper: Inbox, bench: Bench) -> None:
        """The next message of an ordering key goes on when the one before it is done by the word of a sheet."""
        if "ordering_key" not in sheeted.abilities:
            pytest.skip("this storage keeps no ordering keys")
        Source(sheeted.inbox).push(job(b"one", key="k"), job(b"two", key="k"))
        holder = Holder(sheeted.inbox)
        claims = holder.hold()
        assert [claim.envelope for claim in claims] == [b"one"], "two messages of one key are held at once"
        holder.done(*claims)
        bench.kill(sheeted, holder.name)
        assert reaper.reap({}) == ([CHANNEL], False)
        assert self.again(sheeted.inbox) == [(b"two", 1)]

    def test_what_was_claimed_and_not_noted_was_never_begun(
        self, sheeted: Storage, reaper: Inbox, bench: Bench
    ) -> None:
        """A consumer that is killed between its claim and its sheet has handed out nothing of it. Without that word a
        lease that is not on the sheet counts as begun.
        """
        Source(sheeted.inbox).fill(2)
        for claiming, attempt in ((True, 1), (False, 2)):
            holder = Holder(sheeted.inbox)
            holder.done(*holder.hold(1)) if claiming else None
            holder.sheet.claiming(begins=claiming)
            holder.claim()
            bench.kill(sheeted, holder.name)
            reaper.reap({})
            worker = Worker(sheeted.inbox)
            claims = worker.claim()
            assert [(claim.envelope, claim.attempt) for claim in claims] == [(b"envelope 1", attempt)]
            sheeted.inbox.settle([Release(claims[0], counted=False)])

    def test_settled_by_its_consumer_is_not_settled_again(self, sheeted: Storage, reaper: Inbox, bench: Bench) -> None:
        """A consumer killed after it settled, and before its lines are free, changes nothing; a line that is used again
        means the new lease.
        """
        Source(sheeted.inbox).fill(4, receipt=True)
        holder = Holder(sheeted.inbox)
        first, second = holder.hold(2)
        holder.done(first, second)
        assert sheeted.inbox.settle([Ack(first), Release(second, reason="once more")]) == [True, True]
        bench.kill(sheeted, holder.name)
        reaper.reap({})
        assert self.again(sheeted.inbox) == [(b"envelope 1", 2), (b"envelope 2", 1), (b"envelope 3", 1)]
        assert len(sheeted.inbox.outcomes(SENDER, None, 0, 10)[1]) == 1

    def test_lines_are_used_again(self, sheeted: Storage, reaper: Inbox, bench: Bench) -> None:
        """A sheet is never full for long: what is settled makes room, and nothing of the old lease is left."""
        Source(sheeted.inbox).fill(40)
        holder = Holder(sheeted.inbox)
        room = holder.sheet.room
        for _ in range(19):
            claims = holder.hold(2)
            holder.done(*claims)
            assert sheeted.inbox.settle([Ack(claim) for claim in claims]) == [True, True]
            holder.sheet.free([holder.lines[claim.number] for claim in claims])
            assert holder.sheet.room == room
        holder.begin(holder.hold()[0])
        bench.kill(sheeted, holder.name)
        reaper.reap({})
        assert self.again(sheeted.inbox) == [(b"envelope 38", 2), (b"envelope 39", 1)]

    def test_the_living_are_left_alone(self, sheeted: Storage, reaper: Inbox) -> None:
        """What a living consumer has noted as done is its own to settle."""
        Source(sheeted.inbox).fill(2)
        holder = Holder(sheeted.inbox)
        claims = holder.hold()
        holder.done(claims[0])
        assert reaper.reap({})[0] == []
        assert sheeted.inbox.settle([Ack(claim) for claim in claims]) == [True, True]

    def test_a_retired_consumer_is_settled_by_its_sheet(self, sheeted: Storage, reaper: Inbox) -> None:
        """Who leaves properly has its done messages acknowledged; all others come back uncounted."""
        Source(sheeted.inbox).fill(3)
        holder = Holder(sheeted.inbox)
        claims = holder.hold()
        holder.done(claims[0])
        holder.begin(claims[1])
        reaper.retire(holder.name)
        reaper.retire(holder.name)
        with pytest.raises(Closed):
            holder.sheet.done(holder.lines[claims[1].number])
        assert self.again(sheeted.inbox) == [(b"envelope 1", 1), (b"envelope 2", 1)]
        assert sheeted.inbox.counts()[CHANNEL]["processed"] == 1

    # ── among processes ──────────────────────────────────────────────────────────────────────────

    def test_a_killed_process_is_settled_by_its_sheet(self, bench: Bench) -> None:
        """What a handler had finished when its process was killed is never handled again; what was in its hands is, and
        counts; the rest was never begun.
        """
        with self.killed(bench, 3) as said:
            storage = said()
            storage.inbox.reap({})
            assert self.again(storage.inbox) == [(b"envelope 2", 2), *((b"envelope %d" % n, 1) for n in range(3, 8))]

    def test_two_reapers_at_once(self, bench: Bench) -> None:
        """Two processes that find the same dead consumer settle it once."""
        with self.killed(bench, 3) as said:
            one, other = said(), said()
            children = [Child(lambda say: say(len(bench.open().inbox.reap({})[0]))) for _ in range(2)]
            try:
                for child in children:
                    child.go()
                for child in children:
                    assert child.hear() in {0, 1}
                    assert child.wait() == 0
            finally:
                for child in children:
                    child.close()
            one.inbox.reap({})
            other.inbox.reap({})
            assert one.inbox.counts()[CHANNEL]["processed"] == 2
            assert self.again(other.inbox) == [(b"envelope 2", 2), *((b"envelope %d" % n, 1) for n in range(3, 8))]

    def killed(self, bench: Bench, begun: int) -> Any:
        """A store in which a process held eight messages, began ``begun`` and was killed with the last in its hands."""
        return _Killed(bench, begun)

    def test_a_forked_child_writes_nothing(self, bench: Bench) -> None:
        """The sheet is its consumer's process's: a child that was forked off meets Closed, and the sheet says what it
        said before.
        """
        storage = bench.open()
        if storage.inbox.sheets is None or "processes" not in storage.abilities:
            pytest.skip("this storage has no lease sheets, or serves one process")
        Source(storage.inbox).fill(2)
        holder = Holder(storage.inbox)
        claims = holder.hold()

        def work(say: Say) -> None:
            for note in (holder.begin, holder.done):
                try:
                    note(claims[0])
                except Closed:
                    say("Closed")
                else:
                    say("noted")

        with Child(work) as child:
            assert list(child.go().rest()) == ["Closed", "Closed"]
        left = storage.inbox.sheets.left_by(holder.name)
        assert {left.of(claim.token, claim.number).mark.name for claim in claims} == {"HELD"}
        holder.done(claims[1])
        assert storage.inbox.settle([Ack(claim) for claim in claims]) == [True, True]


class _Killed:
    def __init__(self, bench: Bench, begun: int) -> None:
        def work(say: Say) -> None:
            inbox = bench.open().inbox
            Source(inbox).fill(8)
            holder = Holder(inbox)
            claims = holder.hold()
            for claim in claims[: begun - 1]:
                holder.done(claim)
            holder.begin(claims[begun - 1])
            say("ready")
            while True:
                pass

        storage = bench.open("asked-for-its-abilities")
        able = storage.inbox.sheets is not None and {"durable", "processes"} <= storage.abilities
        shut(storage)
        if not able:
            pytest.skip("this storage has no lease sheets, or serves one process")
        self._bench, self._child = bench, Child(work)

    def __enter__(self) -> Callable[[], Storage]:
        assert self._child.go().hear() == "ready"
        self._child.kill()
        return self._bench.open

    def __exit__(self, *_: object) -> None:
        shut(self._child)


__all__ = ["Holder", "LeaseSheetContract"]
