"""What every handler must do, as tests that a plugin author inherits.

    class TestMine(HandlerContract):
        @pytest.fixture
        def handler_case(self):
            return HandlerCase(make=Mine, good=b"order 7", result={"ok": 7}, never=b"nonsense", later=b"busy")

Owns the behaviour that contracts/handler.py describes. Must not know what a handler does.
"""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import attrs
import msgspec
import pytest

from dropr_core.config.units import parse_duration
from dropr_core.contracts.handler import Handler, Work
from dropr_core.errors import Reject, Retry
from dropr_core.model.limits import MAX_RESULT
from dropr_core.model.message import Message
from dropr_core.testing.builders import new_id
from dropr_core.testing.contract import Contract, together, within
from dropr_core.testing.likeness import unlike
from dropr_core.testing.memory import kept

ANY = object()
"""Any result will do."""


def work(body: bytes, attempt: int = 1, **facts: Any) -> Work:
    """A message as a handler gets it; ``facts``: fields of `Message`, and ``value``."""
    value = facts.pop("value", body)
    message = Message(**{"id": new_id(), "sender": "shop", "channel": "orders", **facts})
    return Work(message, body, value, attempt, possible_duplicate=attempt > 1, age=0.5)


def large(small: Work, path: Path) -> Work:
    """The same message with its body in a file, as the worker hands over what is large."""
    path.write_bytes(small.body)
    value = small.value
    return attrs.evolve(small, body=lambda: path.open("rb"), loads=lambda _: value)


@attrs.frozen
class HandlerCase:
    """What the tests need to know about a handler."""

    make: Callable[[], Handler]
    """A new one; the tests close it."""
    good: bytes
    """A body that it can handle, again and again."""
    result: Any = ANY
    """What comes of it, where that is always the same."""
    never: bytes | None = None
    """A body that it must reject for good; None: there is none."""
    later: bytes | None = None
    """A body that it must ask to have again later; None: there is none."""
    fails: bytes | None = None
    """A body at which what it calls fails (a program, a server, a function of the user's): it must raise anything, and
    must not return; None: there is none."""
    effects: Callable[[], Any] | None = None
    """What it has done so far, as something that can be compared: the rows of a table, the lines of a file. None: it
    cannot be seen."""
    make_work: Callable[..., Work] = work
    """Makes the message of a body, where channel, headers or value matter."""


class HandlerContract(Contract):
    """Inherit, and override the fixture `handler_case`."""

    rounds: ClassVar[int] = 50
    """Messages in each stretch over which memory is counted; fewer where each takes long."""
    warm_up: ClassVar[int] = 20
    """Messages before it is counted; more where it remembers so many, and not more than so many."""

    @pytest.fixture
    def handler_case(self) -> HandlerCase:
        """Override this."""
        raise NotImplementedError("write the fixture handler_case in your test class")

    @pytest.fixture
    def handler(self, handler_case: HandlerCase) -> Any:
        """A fresh one, closed after the test."""
        handler = handler_case.make()
        yield handler
        within(self.patience, handler.close, "close")

    def handle(self, handler: Handler, case: HandlerCase, body: bytes, attempt: int = 1) -> Any:
        """One message through the handler, in a thread as the worker's."""
        return within(self.patience, lambda: handler.handle(case.make_work(body, attempt)), "handle")

    def test_a_good_message_is_handled(self, handler_case: HandlerCase, handler: Handler) -> None:
        """It returns, in a thread that is not the main one, and with the result that is expected."""
        assert isinstance(handler, Handler)
        result = self.handle(handler, handler_case, handler_case.good)
        if handler_case.result is not ANY:
            assert result == handler_case.result

    def test_the_result_can_go_home(self, handler_case: HandlerCase, handler: Handler) -> None:
        """A result is None, bytes, text or what JSON carries, and fits into a receipt."""
        result = self.handle(handler, handler_case, handler_case.good)
        data = result if isinstance(result, bytes) else msgspec.json.encode(result)
        assert len(data) <= MAX_RESULT, f"a result of {len(data)} bytes does not fit into a receipt"

    def test_handling_again_works(self, handler_case: HandlerCase, handler: Handler) -> None:
        """The same message may come again (its acknowledgement was lost): that is no failure, and does nothing new."""
        message = handler_case.make_work(handler_case.good)
        first = within(self.patience, lambda: handler.handle(message), "handle")
        done = None if handler_case.effects is None else handler_case.effects()
        again = attrs.evolve(message, attempt=2, possible_duplicate=True)
        second = within(self.patience, lambda: handler.handle(again), "handle of the same message again")
        assert type(first) is type(second), f"the result was {first!r:.100}, and {second!r:.100} when it came again"
        if handler_case.effects is not None:
            after = handler_case.effects()
            assert after == done, f"the same message again did something new: {after!r:.300}, after {done!r:.300}"

    def test_it_keeps_nothing_of_an_earlier_message(self, handler_case: HandlerCase, handler: Handler) -> None:
        """What comes of a message does not depend on those before it."""
        fresh = []
        for _ in range(2):
            other = handler_case.make()
            fresh.append(self.handle(other, handler_case, handler_case.good))
            within(self.patience, other.close, "close")
        results = []
        for body in (handler_case.good, handler_case.never, handler_case.good, handler_case.later, handler_case.good):
            if body == handler_case.good:
                results.append(self.handle(handler, handler_case, body))
            elif body is not None:
                with pytest.raises((Reject, Retry)):
                    self.handle(handler, handler_case, body)
        if unlike(fresh[0], fresh[1]):
            return  # a time, a number, a name: no two are the same, whoever makes them
        wrong = [words for words in (unlike(each, fresh[0], "its result") for each in results) if words]
        assert not wrong, f"after other messages {wrong[0]}, from a new handler"

    # ── large bodies ─────────────────────────────────────────────────────────────────────────────

    def test_a_large_message_is_handled(self, handler_case: HandlerCase, handler: Handler, tmp_path: Path) -> None:
        """A body that lies in a file gives what the same body in memory gives."""
        message = large(handler_case.make_work(handler_case.good), tmp_path / "large body")
        result = within(self.patience, lambda: handler.handle(message), "handle of a large message")
        if handler_case.result is not ANY:
            wrong = unlike(result, handler_case.result, "its result")
            assert not wrong, f"of a large message {wrong} of the same as a small one"

    def test_a_large_message_is_rejected(self, handler_case: HandlerCase, handler: Handler, tmp_path: Path) -> None:
        """What can never work is rejected in a file as in memory."""
        if handler_case.never is None:
            pytest.skip("this handler rejects nothing")
        message = large(handler_case.make_work(handler_case.never), tmp_path / "large body")
        with pytest.raises(Reject):
            within(self.patience, lambda: handler.handle(message), "handle of a large message")

    # ── failures ─────────────────────────────────────────────────────────────────────────────────

    def test_a_failure_is_not_swallowed(self, handler_case: HandlerCase, handler: Handler) -> None:
        """Where what it calls fails it raises: what it returns from is done, and is not tried again."""
        if handler_case.fails is None:
            pytest.skip("nothing that this handler calls can fail")
        try:
            result = self.handle(handler, handler_case, handler_case.fails)
        except Reject as error:
            raise AssertionError(f"it rejected for good what failed once: {error}") from error
        except Exception:
            return  # any error is a failed attempt, which backs off
        raise AssertionError(f"it failed, and was said to be done, with the result {result!r:.200}")

    def test_a_body_that_cannot_be_read_is_a_failure(self, handler_case: HandlerCase, handler: Handler) -> None:
        """An error of this machine's disk is neither success nor the message's fault: it is raised, or a Retry."""
        asked = []

        def gives_up() -> BinaryIO:
            asked.append(1)
            raise OSError(errno.EIO, "planted by the kit: the body cannot be read")

        small = handler_case.make_work(handler_case.good)
        message = attrs.evolve(small, body=gives_up, loads=lambda _: small.value)
        try:
            result = within(self.patience, lambda: handler.handle(message), "handle of a body that cannot be read")
        except Reject as error:
            raise AssertionError(f"it rejected a message for good because a disk failed: {error}") from error
        except Exception:
            return
        assert not asked, f"the body could not be read, and it was said to be done, with the result {result!r:.200}"

    def test_what_can_never_work_is_rejected(self, handler_case: HandlerCase, handler: Handler) -> None:
        """It raises Reject with a reason, which the sender will read; it neither swallows it nor ends the thread."""
        if handler_case.never is None:
            pytest.skip("this handler rejects nothing")
        with pytest.raises(Reject) as caught:
            self.handle(handler, handler_case, handler_case.never)
        assert caught.value.reason, "say why: the sender reads it"

    def test_what_may_work_later_is_asked_for_again(self, handler_case: HandlerCase, handler: Handler) -> None:
        """It raises Retry, whose delay is none or a duration."""
        if handler_case.later is None:
            pytest.skip("this handler asks for nothing again")
        with pytest.raises(Retry) as caught:
            self.handle(handler, handler_case, handler_case.later)
        after = caught.value.after
        assert after is None or parse_duration(after) >= 0

    def test_a_failure_spoils_nothing(self, handler_case: HandlerCase, handler: Handler) -> None:
        """After a rejected message and one for later the next good one is handled."""
        for body in (handler_case.never, handler_case.later):
            if body is not None:
                with pytest.raises((Reject, Retry)):
                    self.handle(handler, handler_case, body)
        self.handle(handler, handler_case, handler_case.good)

    def test_many_threads_share_one(self, handler_case: HandlerCase, handler: Handler, strength: int) -> None:
        """Threads of a worker use one instance at once."""

        def some() -> list[Any]:
            return [handler.handle(handler_case.make_work(handler_case.good)) for _ in range(4 * strength)]

        results = [result for each in together(self.patience, [some] * 4, "handle, in four threads") for result in each]
        if handler_case.result is not ANY:
            wrong = [result for result in results if result != handler_case.result]
            assert not wrong, f"{len(wrong)} of {len(results)} results are wrong, the first is {wrong[0]!r:.200}"

    def test_its_memory_does_not_grow(self, handler_case: HandlerCase, handler: Handler) -> None:
        """A worker runs for months: nothing of a message stays in memory after it was handled."""

        def one() -> None:
            handler.handle(handler_case.make_work(bytes(bytearray(handler_case.good))))

        grown = within(10 * self.patience, lambda: kept(one, self.rounds, self.warm_up), "handling many messages")
        assert not grown, grown

    # ── the end ──────────────────────────────────────────────────────────────────────────────────

    def test_close_twice(self, handler_case: HandlerCase) -> None:
        """`close` comes back, and may be called again, used or not."""
        for use in (False, True):
            handler = handler_case.make()
            if use:
                self.handle(handler, handler_case, handler_case.good)
            within(self.patience, handler.close, "close")
            within(self.patience, handler.close, "the second close")

    def test_two_of_them_do_not_disturb_each_other(self, handler_case: HandlerCase) -> None:
        """Two channels may have the same handler: closing one leaves the other at work."""
        one, two = handler_case.make(), handler_case.make()
        self.handle(one, handler_case, handler_case.good)
        within(self.patience, one.close, "close of the one")
        self.handle(two, handler_case, handler_case.good)
        within(self.patience, two.close, "close of the other")


__all__ = ["ANY", "HandlerCase", "HandlerContract", "work"]
