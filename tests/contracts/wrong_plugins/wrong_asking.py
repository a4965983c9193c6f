"""Transports that are wrong in how they ask: they block, ask twice, show or keep too much of a request, or wait too
short a time; see wrong_transports.py.
"""

import logging
import threading
import time
from concurrent.futures import Future

import pytest
from contracts.wrong_plugins.wrong_transports import Through, Wrong

from dropr_core.errors import Unanswered
from dropr_core.testing import TransportCase, TransportContract


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
