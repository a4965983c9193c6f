"""Transports that are wrong when they close, drain, or are inherited by a forked child; see wrong_transports.py."""

import queue
import socket
import threading
import time
from concurrent.futures import Future
from functools import partial
from unittest.mock import ANY

import pytest
from contracts.wrong_plugins.wrong_asking import InSteps
from contracts.wrong_plugins.wrong_transports import Through, Wrong

from dropr_core.builtin import loopback
from dropr_core.contracts.transport import Listener
from dropr_core.errors import Closed, Unreachable
from dropr_core.testing import TransportCase


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
