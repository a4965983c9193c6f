"""Transports with one mistake each in what comes back, or in what they say of themselves. ``caught_by`` names the test
of the kit that must fail. Owns `Wrong` and `Through`, of which those in wrong_asking.py and wrong_endings.py are made
too.
"""

from concurrent.futures import Future

import pytest

from dropr_core.builtin import loopback
from dropr_core.contracts.transport import Caller, Connection
from dropr_core.errors import Refused, Unanswered, Unreachable
from dropr_core.testing import TransportCase, TransportContract
from dropr_core.testing.contract import PATIENCE


class Through(Connection):
    """A connection that changes what comes back."""

    def __init__(self, inner, change):
        self.inner, self.change = inner, change

    def ask(self, request, *, idle):
        future = Future()
        future.set_running_or_notify_cancel()

        def end(done):
            try:
                future.set_result(self.change(done))
            except BaseException as error:
                future.set_exception(error)

        self.inner.ask(request, idle=idle).add_done_callback(end)
        return future

    def close(self):
        self.inner.close()


class Wrong(TransportContract):
    """The transport `loopback` with a mistake."""

    __test__ = False
    patience = 5.0

    def change(self, done):
        """The answer of a request, wrongly."""
        return done.result()

    def plant(self, transport):
        """Put the mistake in."""
        connect = transport.connect
        transport.connect = lambda url: Through(connect(url), self.change)

    @pytest.fixture
    def transport_case(self):
        hub = loopback.Hub()

        def make():
            transport = loopback.LoopbackTransport(hub)
            self.plant(transport)
            return transport

        return TransportCase(make, listen="loopback://0", nobody="loopback://nobody")


class TestGivesAnothersAnswer(Wrong):
    """With several answers at once it gives each asker the one that came last."""

    __test__ = True
    caught_by = "test_many_at_once_on_one_connection"
    last = b""

    def change(self, done):
        last, self.last = self.last, done.result()
        return last or self.last


class TestSaysUnreachableThoughItArrived(Wrong):
    __test__ = True
    caught_by = "test_fault_28_no_answer_within_the_idle_time"

    def change(self, done):
        try:
            return done.result()
        except Unanswered as error:
            raise Unreachable(str(error)) from error


class TestRaisesForeignExceptions(Wrong):
    __test__ = True
    caught_by = "test_fault_27_nobody_listens"

    def change(self, done):
        try:
            return done.result()
        except Unreachable as error:
            raise ConnectionRefusedError(111, "Connection refused") from error


class TestDropsTheCodeOfARefusal(Wrong):
    __test__ = True
    caught_by = "test_refusals_of_admit_pass_with_code_and_text"

    def change(self, done):
        try:
            return done.result()
        except Refused as error:
            raise Unanswered(str(error)) from error


class TestClaimsToHideTheContent(Wrong):
    """Lies about an ability: it declares ``encrypted`` and names no scheme that is."""

    __test__ = True
    caught_by = "test_abilities_are_known_words"

    def plant(self, transport):
        transport.abilities = frozenset({"encrypted"})


class TestNamesCallersItCannotKnow(Wrong):
    """Passes on an identity that it did not prove, and does not declare ``knows_caller``."""

    __test__ = True
    caught_by = "test_undeclared_knowledge_of_callers_is_not_claimed"

    def plant(self, transport):
        listen = transport.listen

        class Names:
            def __init__(self, answerer):
                self.answerer, self.head_size = answerer, answerer.head_size

            def admit(self, head, caller):
                return self.answerer.admit(head, Caller(caller.address, "the boss"))

            def answer(self, request, caller):
                return self.answerer.answer(request, Caller(caller.address, "the boss"))

        transport.listen = lambda url, answerer: listen(url, Names(answerer))


class TestTellsTheHostsSecrets(Wrong):
    __test__ = True
    caught_by = "test_fault_34_internal_errors_are_unknown_and_tell_nothing"

    def change(self, done):
        try:
            return done.result()
        except Unanswered as error:
            raise Unanswered(f"{error}: secret detail of answer") from error


class TestSwapsPieces(Wrong):
    """It gives long answers back with two pieces of 4 KiB in each other's place."""

    __test__ = True
    caught_by = "test_any_bytes_come_back_unchanged"

    def change(self, done):
        whole = done.result()
        return whole[:4096] + whole[8192:12288] + whole[4096:8192] + whole[12288:]


class TestEndsAtAZero(Wrong):
    """Its C string ends where the request has a zero byte after the first kibibyte."""

    __test__ = True
    caught_by = "test_any_bytes_come_back_unchanged"

    def change(self, done):
        whole = bytes(done.result())
        end = whole.find(b"\0", 1024)
        return whole if end < 0 else whole[:end]


class TestTranslatesLineEnds(Wrong):
    """It believes that it carries text."""

    __test__ = True
    caught_by = "test_any_bytes_come_back_unchanged"

    def change(self, done):
        return bytes(done.result()).replace(b"\r\n", b"\n")


class TestGoodTransport(Wrong):
    """The control, for connections that are wrapped."""

    __test__ = True
    patience = PATIENCE


class TestCheckRaises(Wrong):
    """It leaves the reading of a port to int()."""

    __test__ = True
    caught_by = "test_check_raises_nothing"

    def plant(self, transport):
        check = transport.check

        def raises(url, *, listen):
            int(url.rpartition(":")[2] if url.count(":") > 1 else "0")
            return check(url, listen=listen)

        transport.check = raises


class TestRemembersEveryAnswer(Wrong):
    """A log of what was answered, in memory."""

    __test__ = True
    caught_by = "test_its_memory_does_not_grow and requests"

    def change(self, done):
        self.__dict__.setdefault("answers", []).append(done.result())
        return done.result()
