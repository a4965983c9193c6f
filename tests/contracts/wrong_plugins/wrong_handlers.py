"""Handlers with one mistake each; see test_wrong_plugins.py."""

import os
import socket
import threading
import time

import pytest

from dropr_core.contracts.handler import Handler
from dropr_core.errors import Reject
from dropr_core.testing import HandlerCase, HandlerContract
from dropr_core.testing.contract import PATIENCE
from dropr_core.testing.handler_contract import ANY


class WrongHandler(HandlerContract):
    __test__ = False
    patience = 1.0

    rounds, warm_up = 50, 10
    fails = b"fails"

    def handle_one(self, work):
        """What the handler does."""
        if work.body == b"never":
            raise Reject("it says never")
        return self.call(work.body, work.id)

    def call(self, body, identity):
        """The user's function."""
        if body == b"fails":
            raise KeyError("what the user did not think of")
        self.done[identity] = self.done.get(identity, 0) + self.step
        while len(self.done) > 5:
            del self.done[next(iter(self.done))]
        return len(body)

    result = ANY
    step = 0
    """How much it does of a message at each time."""

    def close_one(self):
        """How it closes."""

    @pytest.fixture
    def handler_case(self):
        case = self
        case.done = {}

        class Made(Handler):
            def __init__(self):
                self.state = {}

            def handle(self, work):
                case.state = self.state
                return case.handle_one(work)

            def close(self):
                case.close_one()

        return HandlerCase(
            Made,
            good=b"12345",
            result=self.result,
            never=b"never",
            fails=self.fails,
            effects=lambda: dict(sorted(self.done.items())),
        )


class TestGoodHandler(WrongHandler):
    """The control."""

    __test__ = True
    patience = PATIENCE


class TestSwallowsReject(WrongHandler):
    __test__ = True
    caught_by = "test_what_can_never_work_is_rejected"

    def handle_one(self, work):
        try:
            return super().handle_one(work)
        except Exception:
            return None


class TestEndsTheWorker(WrongHandler):
    __test__ = True
    caught_by = "test_what_can_never_work_is_rejected"

    def handle_one(self, work):
        try:
            return super().handle_one(work)
        except Reject:
            raise SystemExit(1) from None


class TestReturnsWhatCannotGoHome(WrongHandler):
    __test__ = True
    caught_by = "test_the_result_can_go_home"

    def handle_one(self, work):
        return object() if work.body != b"never" else super().handle_one(work)


class TestHandlerBlocksOnClose(WrongHandler):
    __test__ = True
    caught_by = "test_close_twice"

    def close_one(self):
        time.sleep(1.5)


class TestLeavesAThread(WrongHandler):
    """Starts one at each message, and forgets it."""

    __test__ = True
    caught_by = "test_a_good_message_is_handled"
    leaks = True

    def handle_one(self, work):
        thread = threading.Thread(target=threading.Event().wait, args=(30,), daemon=True)
        thread.start()
        return super().handle_one(work)


class TestLeavesADescriptor(WrongHandler):
    """Opens the body, and keeps it open."""

    __test__ = True
    caught_by = "test_a_large_message_is_handled"
    leaks = True

    def handle_one(self, work):
        if work.large:
            with work.open() as file:
                os.dup(file.fileno())
        return super().handle_one(work)


class TestLeavesASocket(WrongHandler):
    __test__ = True
    caught_by = "test_a_good_message_is_handled"
    leaks = True

    def handle_one(self, work):
        socket.socket().detach()
        return super().handle_one(work)


class TestLeavesAChildProcess(WrongHandler):
    """Starts a program, and waits for it no more than for its own end."""

    __test__ = True
    caught_by = "test_a_good_message_is_handled"
    leaks = True

    def handle_one(self, work):
        os.posix_spawnp("sleep", ["sleep", "300"], os.environ)
        return super().handle_one(work)


class TestNeverWaitsForItsChild(WrongHandler):
    """The program ends at once, and stays as a zombie."""

    __test__ = True
    caught_by = "test_a_good_message_is_handled"
    leaks = True

    def handle_one(self, work):
        os.posix_spawnp("true", ["true"], os.environ)
        return super().handle_one(work)


class TestRemembersEveryMessage(WrongHandler):
    """So as to do none twice, and for ever."""

    __test__ = True
    caught_by = "test_its_memory_does_not_grow"

    def handle_one(self, work):
        self.__dict__.setdefault("seen", set()).add(work.id)
        return super().handle_one(work)


class TestSaysDoneThoughItFailed(WrongHandler):
    """Logs the error of the user's function, and goes on."""

    __test__ = True
    caught_by = "test_a_failure_is_not_swallowed"

    def call(self, body, identity):
        try:
            return super().call(body, identity)
        except Exception:
            return None


class TestSaysDoneThoughItCouldNotRead(WrongHandler):
    """The same, where no body is known at which the user's function fails."""

    __test__ = True
    caught_by = "test_a_body_that_cannot_be_read_is_a_failure"
    fails = None

    def handle_one(self, work):
        try:
            return super().handle_one(work)
        except Reject:
            raise
        except Exception:
            return None


class TestBlamesTheMessageForTheDisk(WrongHandler):
    __test__ = True
    caught_by = "test_a_body_that_cannot_be_read_is_a_failure"

    def handle_one(self, work):
        try:
            return super().handle_one(work)
        except OSError as error:
            raise Reject(str(error)) from error


class TestRefusesWhatComesAgain(WrongHandler):
    """Takes a message that comes again for a mistake."""

    __test__ = True
    caught_by = "test_handling_again_works"

    def handle_one(self, work):
        if work.attempt > 1:
            raise ValueError("this message was here before")
        return super().handle_one(work)


class TestDoesItTwice(WrongHandler):
    """What it has done is done once more when the message comes again."""

    __test__ = True
    caught_by = "test_handling_again_works"
    step = 1


class TestKeepsTheLastMessage(WrongHandler):
    """Gives back the result of the longest message that it has seen."""

    __test__ = True
    caught_by = "test_it_keeps_nothing_of_an_earlier_message"

    def call(self, body, identity):
        self.state["most"] = self.state.get("most", 0) + super().call(body, identity)
        return self.state["most"]


class TestFailsForEverAfterARejection(WrongHandler):
    """A connection, a transaction that nobody cleans up after an error."""

    __test__ = True
    caught_by = "test_it_keeps_nothing_of_an_earlier_message"
    broken = False

    def handle_one(self, work):
        if self.broken:
            raise RuntimeError("current transaction is aborted")
        self.broken = work.body == b"never"
        return super().handle_one(work)


class TestTakesTheBodyForBytes(WrongHandler):
    """Looks where only small bodies are."""

    __test__ = True
    caught_by = "test_a_large_message_is_handled"

    def handle_one(self, work):
        if work._body == b"never":
            raise Reject("it says never")
        return len(work._body)


class TestTakesALargeBodyForEmpty(WrongHandler):
    __test__ = True
    caught_by = "test_a_large_message_is_handled"

    result = 5

    def handle_one(self, work):
        return 0 if work.large else super().handle_one(work)


class TestTakesALargeBodyUnseen(WrongHandler):
    """Checks what is small."""

    __test__ = True
    caught_by = "test_a_large_message_is_rejected"

    def handle_one(self, work):
        return 5 if work.large else super().handle_one(work)
