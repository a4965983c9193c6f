"""Handlers with one mistake each; see test_wrong_plugins.py."""

import threading
import time

import pytest

from dropr_core.contracts.handler import Handler
from dropr_core.errors import Reject
from dropr_core.testing import HandlerCase, HandlerContract


class WrongHandler(HandlerContract):
    __test__ = False
    patience = 1.0

    def handle_one(self, work):
        """What the handler does."""
        if work.body == b"never":
            raise Reject("it says never")
        return len(work.body)

    def close_one(self):
        """How it closes."""

    @pytest.fixture
    def handler_case(self):
        case = self

        class Made(Handler):
            def handle(self, work):
                return case.handle_one(work)

            def close(self):
                case.close_one()

        return HandlerCase(Made, good=b"12345", never=b"never")


class TestGoodHandler(WrongHandler):
    """The control."""

    __test__ = True


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
