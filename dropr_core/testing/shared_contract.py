"""Contract tests of what machines share: documents, elections and wake-ups.

Owns one test for each sentence of contracts/shared.py. Must not know any storage by name; the process contracts of a
storage kill real processes, here a line is cut.
"""

import queue
import threading
import time
from collections.abc import Callable

import attrs
import pytest

from dropr_core.contracts.shared import MAX_DOCUMENT, Election, Shared
from dropr_core.errors import StoreError, TooBig
from dropr_core.testing.contract import Contract, shut, together, within


@attrs.frozen
class SharedCase:
    """What the tests need to know."""

    machine: Callable[[], Shared]
    """One more machine at one and the same store, which is empty at first. The fixture closes it."""
    end: Callable[[Shared], None]
    """Close the storage of this machine; safe twice."""
    cut: Callable[[Shared], None]
    """Break the line between this machine and the store, as the store's restart would; it may come again by itself."""


class SharedContract(Contract):
    """Everything that a storage for several machines promises of `Storage.shared`."""

    @pytest.fixture
    def shared_case(self) -> SharedCase:
        """Give the tests your storage."""
        raise NotImplementedError("give this class a fixture shared_case")

    # ── documents ────────────────────────────────────────────────────────────────────────────────

    def test_a_document_is_seen_by_every_machine(self, shared_case: SharedCase) -> None:
        """What one machine wrote, another reads, byte for byte; a name that nobody wrote is None."""
        one, two = shared_case.machine(), shared_case.machine()
        assert one.load("pauses") is None
        data = bytes(range(256))
        assert one.replace("pauses", data, 0)
        found = two.load("pauses")
        assert found is not None
        assert found.data == data
        assert found.version > 0
        assert two.load("pause") is None

    def test_a_document_changes_only_from_the_version_that_was_seen(self, shared_case: SharedCase) -> None:
        """Compare and set: who saw an older version changes nothing, also where it was removed and made again."""
        one, two = shared_case.machine(), shared_case.machine()
        assert one.replace("d", b"1", 0)
        assert not two.replace("d", b"x", 0)
        first = two.load("d")
        assert first is not None
        assert one.replace("d", b"2", first.version)
        assert not two.replace("d", b"x", first.version)
        second = one.load("d")
        assert second is not None
        assert (second.data, second.version == first.version) == (b"2", False)
        assert not one.replace("d", None, first.version)
        assert one.replace("d", None, second.version)
        assert two.load("d") is None
        assert not one.replace("d", None, second.version)
        assert not one.replace("d", b"x", second.version)
        assert one.replace("d", b"2", 0)
        again = two.load("d")
        assert again is not None
        assert again.version not in {first.version, second.version}

    def test_of_many_at_once_one_wins(self, shared_case: SharedCase) -> None:
        """Of eight that change one version at once, exactly one is told that it did, and its words stand there."""
        machines = [shared_case.machine() for _ in range(2)]
        calls = [
            lambda machine=machines[index % 2], word=b"%d" % index: machine.replace("d", word, 0) for index in range(8)
        ]
        won = together(self.patience, calls, "replace of one document by eight threads")
        assert won.count(True) == 1
        found = machines[0].load("d")
        assert found is not None
        assert found.data == b"%d" % won.index(True)

    def test_names_are_listed_by_their_beginning(self, shared_case: SharedCase) -> None:
        """Names that begin like this, sorted; signs that a database takes for patterns are letters like any."""
        one = shared_case.machine()
        for name in ("inv/b", "inv/a", "in%/c", "in_/d", "other"):
            assert one.replace(name, b"", 0)
        assert shared_case.machine().names("inv/") == ["inv/a", "inv/b"]
        assert one.names("in%") == ["in%/c"]
        assert one.names("in_") == ["in_/d"]
        assert one.names("none") == []

    def test_a_document_has_a_limit(self, shared_case: SharedCase) -> None:
        """MAX_DOCUMENT bytes go in; one more raises TooBig, and nothing changed."""
        one = shared_case.machine()
        assert one.replace("big", b"x" * MAX_DOCUMENT, 0)
        found = one.load("big")
        assert found is not None
        with pytest.raises(TooBig):
            one.replace("big", b"y" * (MAX_DOCUMENT + 1), found.version)
        assert one.load("big") == found

    # ── elections ────────────────────────────────────────────────────────────────────────────────

    def test_one_is_elected_at_a_time(self, shared_case: SharedCase) -> None:
        """The second is told None, on another machine and on the same; another name is another election."""
        one, two = shared_case.machine(), shared_case.machine()
        told: queue.SimpleQueue[None] = queue.SimpleQueue()
        mine = one.elect("daemon", lambda: told.put(None))
        assert mine is not None
        assert mine.holds()
        assert two.elect("daemon") is None
        assert one.elect("daemon") is None
        assert two.elect("relay") is not None
        mine.release()
        mine.release()
        assert not mine.holds()
        assert told.empty()
        theirs = two.elect("daemon")
        assert theirs is not None
        assert theirs.holds()
        mine.release()
        assert theirs.holds()

    def test_of_many_candidates_one_is_elected(self, shared_case: SharedCase) -> None:
        """Of six that stand at once, one is elected."""
        machines = [shared_case.machine() for _ in range(2)]
        calls = [lambda machine=machines[index % 2]: machine.elect("daemon") for index in range(6)]
        won = [one for one in together(self.patience, calls, "elect by six threads") if one is not None]
        assert len(won) == 1
        assert won[0].holds()

    def test_a_lost_line_ends_an_election(self, shared_case: SharedCase) -> None:
        """The holder notices by itself, for good, and somebody else is elected."""
        one, two = shared_case.machine(), shared_case.machine()
        lost: queue.SimpleQueue[None] = queue.SimpleQueue()
        mine = one.elect("daemon", lambda: lost.put(None))
        assert mine is not None
        shared_case.cut(one)
        self._until(lambda: not mine.holds(), "the holder notices that its line was lost")
        lost.get(timeout=self.patience)
        theirs = self._elected(two)
        assert theirs.holds()
        assert not mine.holds()
        mine.release()
        assert theirs.holds()

    def test_a_closed_store_gives_its_elections_back(self, shared_case: SharedCase) -> None:
        """Closing releases at once."""
        one, two = shared_case.machine(), shared_case.machine()
        mine = one.elect("daemon")
        assert mine is not None
        within(self.patience, lambda: shared_case.end(one), "close of a storage")
        assert not mine.holds()
        assert self._elected(two).holds()

    def test_machines_agree_about_the_time(self, shared_case: SharedCase) -> None:
        """The store's clock says about the same on every machine, and goes on."""
        one, two = shared_case.machine(), shared_case.machine()
        assert abs(one.now() - two.now()) < self.patience
        before = two.now()
        self._until(lambda: two.now() > before, "the clock goes on")

    # ── wake-ups ─────────────────────────────────────────────────────────────────────────────────

    def test_a_wake_up_reaches_other_machines(self, shared_case: SharedCase) -> None:
        """Each topic of a notification is heard on the other machine, whatever letters it is made of."""
        one, two = shared_case.machine(), shared_case.machine()
        heard: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        listening = two.listen(heard.put)
        try:
            topics = {"outbox", "inbox/é'\"\\ %", "long/" + "x" * 600}
            self._hears(one, heard, topics)
        finally:
            shut(listening, self.patience)

    def test_many_wake_ups_of_one_topic_are_cheap(self, shared_case: SharedCase) -> None:
        """Thousands in a row do not wait for the store, and the last is heard."""
        one, two = shared_case.machine(), shared_case.machine()
        heard: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        listening = two.listen(heard.put)
        try:
            self._hears(one, heard, {"ready"})
            while not heard.empty():
                heard.get_nowait()
            for _ in range(5000):
                one.notify(["outbox"])
            self._hears(one, heard, {"last"})
        finally:
            shut(listening, self.patience)

    def test_who_closed_hears_nothing_more(self, shared_case: SharedCase) -> None:
        """After close of one listening the others go on, and it is called no more."""
        one, two = shared_case.machine(), shared_case.machine()
        first: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        second: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        gone, stays = two.listen(first.put), two.listen(second.put)
        try:
            self._hears(one, second, {"a"})
            shut(gone, self.patience)
            shut(gone, self.patience)
            while not first.empty():
                first.get_nowait()
            self._hears(one, second, {"b"})
            assert first.empty()
        finally:
            shut(stays, self.patience)

    def test_after_a_lost_line_one_is_told_to_look_at_everything(self, shared_case: SharedCase) -> None:
        """What was notified while the line was cut may be missed: the hearer is told None, and hears again."""
        one, two = shared_case.machine(), shared_case.machine()
        heard: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        listening = two.listen(heard.put)
        try:
            self._hears(one, heard, {"before"})
            shared_case.cut(two)
            ends = time.monotonic() + self.patience
            while (word := heard.get(timeout=max(0.01, ends - time.monotonic()))) is not None:
                assert word == "before"
            self._hears(one, heard, {"after"})
        finally:
            shut(listening, self.patience)

    def test_a_wake_up_never_raises(self, shared_case: SharedCase) -> None:
        """A line that is cut is no reason to fail after a commit."""
        one = shared_case.machine()
        shared_case.cut(one)
        one.notify(["outbox"])
        one.notify([])

    # ── helpers ──────────────────────────────────────────────────────────────────────────────────

    def _hears(self, who: Shared, heard: "queue.SimpleQueue[str | None]", topics: set[str]) -> None:
        """Notify until all topics came: a hearer may begin to listen a little after `listen` returned."""
        left, ends = set(topics), time.monotonic() + self.patience
        while left and time.monotonic() < ends:
            who.notify(sorted(left))
            try:
                left.discard(heard.get(timeout=0.2) or "")
                while left:
                    left.discard(heard.get(timeout=0.05) or "")
            except queue.Empty:
                continue
        assert not left, f"not heard within {self.patience:.0f} s: {left}"

    def _elected(self, who: Shared) -> Election:
        found: list[Election] = []

        def stand() -> bool:
            try:
                election = who.elect("daemon")
            except StoreError:
                return False
            if election is not None:
                found.append(election)
            return bool(found)

        self._until(stand, "another machine is elected")
        return found[0]

    def _until(self, done: Callable[[], bool], what: str) -> None:
        pause, ends = threading.Event(), time.monotonic() + self.patience
        while not done():
            assert time.monotonic() < ends, f"not within {self.patience:.0f} s: {what}"
            pause.wait(0.02)


__all__ = ["SharedCase", "SharedContract"]
