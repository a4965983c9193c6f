"""Transports with one mistake each. ``caught_by`` names the test of the kit that must fail."""

import logging
import queue
import socket
import threading
import time
from concurrent.futures import Future
from functools import partial
from unittest.mock import ANY

import pytest

from dropr_core.builtin import loopback
from dropr_core.contracts.transport import Caller, Connection, Listener
from dropr_core.errors import Closed, Refused, Unanswered, Unreachable
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


class TestBlocksInAsk(Wrong):
    __test__ = True
    caught_by = "test_asking_does_not_block"

    def plant(self, transport):
        connect = transport.connect

        class Blocks(Through):
            def ask(self, request, *, idle):
                future = super().ask(request, idle=idle)
                future.exception(idle)
                return future

        transport.connect = lambda url: Blocks(connect(url), self.change)


class TestBlocksOnClose(Wrong):
    """Waits for answers that may never come."""

    __test__ = True
    caught_by = "test_close_comes_back"
    patience = 0.5

    def plant(self, transport):
        listen = transport.listen

        class Door(Listener):
            def __init__(self, inner):
                self.inner, self.url = inner, inner.url

            def close(self, *, drain=0.0):
                time.sleep(2.0)
                self.inner.close()

        transport.listen = lambda url, answerer: Door(listen(url, answerer))


class TestAsksTwiceOnItsOwn(Wrong):
    """Repeats a request that it believes lost, which only dropr may decide."""

    __test__ = True
    caught_by = "test_many_at_once_on_several_connections"

    def plant(self, transport):
        connect = transport.connect

        class Twice(Through):
            def ask(self, request, *, idle):
                self.inner.ask(request, idle=idle)
                return super().ask(request, idle=idle)

        transport.connect = lambda url: Twice(connect(url), self.change)


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


class TestReadsEverythingBeforeItAsks(Wrong):
    """Gives the whole request to `admit`, which is there to refuse it by its beginning."""

    __test__ = True
    caught_by = "test_admit_sees_the_beginning_only"

    def plant(self, transport):
        listen = transport.listen

        class Greedy:
            head_size = 1 << 40

            def __init__(self, answerer):
                self.admit, self.answer = answerer.admit, answerer.answer

        transport.listen = lambda url, answerer: listen(url, Greedy(answerer))


class TestSpendsAThreadOnEachPoll(Wrong):
    __test__ = True
    caught_by = "test_long_polls_do_not_block_others"

    def plant(self, transport):
        connect = transport.connect

        class Threads(Through):
            def ask(self, request, *, idle):
                future = super().ask(request, idle=idle)
                threading.Thread(target=lambda: future.exception(1.0), daemon=True).start()
                return future

        transport.connect = lambda url: Threads(connect(url), self.change)


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


class TestKeepsASocketForEachConnection(Wrong):
    """Closing a connection leaves its socket open."""

    __test__ = True
    caught_by = "test_any_bytes_come_back_unchanged"
    leaks = True

    def plant(self, transport):
        connect = transport.connect

        def leaky(url):
            self.kept = socket.socket()
            self.kept.detach()
            return connect(url)

        transport.connect = leaky


class TestGoodTransport(Wrong):
    """The control, for connections that are wrapped."""

    __test__ = True
    patience = PATIENCE


class TestWaitsForAnswersOnClose(Wrong):
    """Its connections close when everything that they asked was answered."""

    __test__ = True
    caught_by = "test_close_comes_back"
    patience = 0.5

    def plant(self, transport):
        connect = transport.connect

        class Waits(Through):
            def ask(self, request, *, idle):
                self.last = super().ask(request, idle=idle)
                return self.last

            def close(self):
                self.last.exception(2.0)
                super().close()

        transport.connect = lambda url: Waits(connect(url), self.change)


def door(transport, close):
    """Let the listeners of a transport close in another way."""
    listen = transport.listen

    class Door(Listener):
        def __init__(self, inner):
            self.inner, self.url = inner, inner.url

        def close(self, *, drain=0.0):
            close(self.inner, drain)

    transport.listen = lambda url, answerer: Door(listen(url, answerer))


class TestIgnoresDrain(Wrong):
    __test__ = True
    caught_by = "test_drain_lets_answers_out"

    def plant(self, transport):
        door(transport, lambda inner, drain: inner.close())


class TestDrainsTheWholeTime(Wrong):
    """It waits as long as it may, though nothing is under way any more."""

    __test__ = True
    caught_by = "test_drain_lets_answers_out"

    def plant(self, transport):
        over, end = threading.Event(), transport.close

        def close(inner, drain):
            inner.close(drain=drain)
            over.wait(drain)  # the test waits less, and its end ends this: nothing is left behind

        def end_all():
            over.set()
            end()

        door(transport, close)
        transport.close = end_all


class TestDrainsForEver(Wrong):
    """It waits for the last answer, however long that takes."""

    __test__ = True
    caught_by = "test_drain_ends"
    patience = 0.5

    def plant(self, transport):
        door(transport, lambda inner, drain: inner.close(drain=2.0 if drain else 0.0))


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


class TestAskRaisesAfterClose(Wrong):
    """Who asks must be ready for an exception instead of a future."""

    __test__ = True
    caught_by = "test_everything_closes_twice"

    def plant(self, transport):
        connect = transport.connect

        class Raises(Through):
            def ask(self, request, *, idle):
                if self.inner.closed:
                    raise Closed("closed")
                return super().ask(request, idle=idle)

        transport.connect = lambda url: Raises(connect(url), self.change)


class InSteps(Through):
    """Reads the end of a long request in steps of a mebibyte, and stops if the time for the whole is over."""

    whole_time = None

    def ask_long(self, beginning, tail, *, idle):
        data, begun = bytearray(beginning), time.monotonic()
        for offset in range(0, tail.size, 1 << 20):
            try:
                data += tail.read(offset, min(1 << 20, tail.size - offset))
            except OSError as error:
                return self.failed(Unanswered(str(error)))
            if self.whole_time and time.monotonic() - begun > self.whole_time * idle:
                return self.failed(Unanswered("no answer in time"))
        return self.ask(bytes(data), idle=idle)

    @staticmethod
    def failed(error):
        future = Future()
        future.set_exception(error)
        return future


class TestTakesIdleForATotal(Wrong):
    __test__ = True
    caught_by = "test_the_idle_time_is_none_for_the_whole"

    def plant(self, transport):
        connect = transport.connect

        class Total(InSteps):
            whole_time = 0.3

        transport.connect = lambda url: Total(connect(url), self.change)


class TestSendsAllBeforeAdmit(Wrong):
    """Only when the other side has everything, the host is asked whether it may come."""

    __test__ = True
    caught_by = "test_the_end_of_a_long_request_waits_for_admit"

    def plant(self, transport):
        connect = transport.connect
        transport.connect = lambda url: InSteps(connect(url), self.change)


class TestServesAForkedChild(Wrong):
    """A copy of the listener lives in the child: it answers, and the host never hears of it."""

    __test__ = True
    caught_by = "test_a_forked_child_is_told_or_served"
    patience = 1.0

    def plant(self, transport):
        transport._timer._pid = transport._hub._pid = ANY


class TestLeavesItsThreadBehind(Wrong):
    """What sends is a thread, and a forked child has none: it waits for an answer for ever."""

    __test__ = True
    caught_by = "test_a_forked_child_is_told_or_served"
    patience = 1.0

    def plant(self, transport):
        connect = transport.connect

        class Queued(Through):
            def __init__(self, *words):
                super().__init__(*words)
                self.waiting = queue.Queue()
                self.thread = threading.Thread(target=self.run)
                self.thread.start()

            def run(self):
                while (asked := self.waiting.get()) is not None:
                    request, idle, future = asked
                    self.inner.ask(request, idle=idle).add_done_callback(partial(self.end, future))

            @staticmethod
            def end(future, done):
                error = done.exception()
                future.set_result(done.result()) if error is None else future.set_exception(error)

            def ask(self, request, *, idle):
                future = Future()
                future.set_running_or_notify_cancel()
                self.waiting.put((request, idle, future))
                return future

            def close(self):
                super().close()
                self.waiting.put(None)
                self.thread.join()

        opened = []

        def keep(url):
            opened.append(Queued(connect(url), self.change))
            return opened[-1]

        def close(inner=transport.close):
            for one in opened:
                one.close()
            inner()

        transport.connect, transport.close = keep, close


class TestClosesForTheParent(Wrong):
    """When a child closes what it inherited, it says good-bye in the name of its parent."""

    __test__ = True
    caught_by = "test_a_forked_child_is_told_or_served"

    @pytest.fixture
    def transport_case(self, tmp_path):
        door, hub = tmp_path / "door", loopback.Hub()

        class Shown(loopback.LoopbackTransport):
            def listen(self, url, answerer):
                listener = super().listen(url, answerer)
                door.touch()
                return listener

            def connect(self, url):
                connection = super().connect(url)
                ask = connection.ask

                def looks(request, *, idle):
                    if door.exists():
                        return ask(request, idle=idle)
                    return InSteps.failed(Unreachable("the door is closed"))

                connection.ask = looks
                return connection

            def close(self):
                door.unlink(missing_ok=True)
                super().close()

        return TransportCase(lambda: Shown(hub), listen="loopback://0", nobody="loopback://nobody")


class TestCopiesAllBeforeAdmit(Wrong):
    """It puts a request together as a whole, and then shows its beginning to the host."""

    __test__ = True
    caught_by = "test_what_was_not_admitted_is_not_kept"

    def plant(self, transport):
        connect = transport.connect

        class Copies(Through):
            def ask(self, request, *, idle):
                return super().ask(bytes(bytearray(request)), idle=idle)

        transport.connect = lambda url: Copies(connect(url), self.change)


class TestMakesRoomBeforeAdmit(TransportContract):
    """It takes memory for as many bytes as a stranger says that he has."""

    __test__ = True
    caught_by = "test_what_was_not_admitted_is_not_kept"

    @pytest.fixture
    def transport_case(self):
        curl = pytest.importorskip("dropr_transport_curl")

        class Roomy(curl.CurlTransport):
            def listen(self, url, answerer):
                class Judge:
                    head_size, answer = answerer.head_size, answerer.answer

                    def admit(self, head, caller):
                        room = b"." * int(head[:12])
                        return answerer.admit(head, caller) if room else 0

                return super().listen(url, Judge())

        return TransportCase(lambda: Roomy(curl.Options(), logging.getLogger("test.curl")),
                             listen="http://127.0.0.1:0/dropr", nobody="http://127.0.0.1:9/dropr")  # fmt: skip


class TestRemembersEveryAnswer(Wrong):
    """A log of what was answered, in memory."""

    __test__ = True
    caught_by = "test_its_memory_does_not_grow and requests"

    def change(self, done):
        self.__dict__.setdefault("answers", []).append(done.result())
        return done.result()


class TestKeepsClosedConnections(Wrong):
    """So as to close them once more at the end."""

    __test__ = True
    caught_by = "test_its_memory_does_not_grow and connections"

    def plant(self, transport):
        connect, opened = transport.connect, []

        def keeps(url):
            opened.append(connect(url))
            return opened[-1]

        transport.connect = keeps
