"""A context that observers carry along is there for the handler, in a thread and on an event loop, not after it."""

import asyncio
import contextlib
import contextvars
import logging

import pytest
from support.one_node import open_node

from dropr_core.api.handler_call import call, call_async
from dropr_core.contracts.storage import Ack, Release
from dropr_core.hookspecs import hookimpl

LOG = logging.getLogger("test")
TRACE = contextvars.ContextVar("trace", default="")


class Carrier:
    """An observer that sets what the thread or task has as its context."""

    left: list

    def __init__(self):
        self.left = []

    @hookimpl
    def dropr_message_handling(self, facts, attempt):
        return self.around(f"{facts.channel} {attempt} {facts.headers.get('traceparent')}")

    @contextlib.contextmanager
    def around(self, text):
        token = TRACE.set(text)
        try:
            yield
        except Exception as error:
            self.left.append(type(error).__name__)
            raise
        finally:
            TRACE.reset(token)


class Plain:
    def __init__(self, fails=False):
        self.seen, self.fails = [], fails

    def handle(self, work):
        self.seen.append(TRACE.get())
        if self.fails:
            raise ValueError(work.id)

    async def handle_async(self, work):
        await asyncio.sleep(0)
        self.handle(work)


@pytest.fixture
def carried(tmp_path, monkeypatch):
    """A message that was claimed on a node with such an observer, and the observer."""
    with open_node(tmp_path) as node:
        carrier = Carrier()
        observers = node.runtime.observers
        monkeypatch.setattr(node.runtime, "observed", True)
        observers._observers.append(("carrier", _manager(carrier), carrier, LOG))
        node.put(b"x", channel="jobs", headers={"traceparent": "t"})
        with contextlib.closing(node.receive("jobs", limit=1)) as messages:
            yield next(iter(messages)), carrier


def _manager(observer):
    import pluggy

    from dropr_core import hookspecs

    manager = pluggy.PluginManager("dropr")
    manager.add_hookspecs(hookspecs)
    manager.register(observer)
    return manager


@pytest.mark.parametrize("fails", [False, True])
def test_it_is_there_in_a_thread(carried, fails):
    """For the time of the call, and told how that ended."""
    message, carrier = carried
    handler = Plain(fails)
    change = call(handler, message, LOG)
    assert handler.seen == ["jobs 1 t"]
    assert TRACE.get() == ""
    assert carrier.left == (["ValueError"] if fails else [])
    assert isinstance(change, Release if fails else Ack)


@pytest.mark.parametrize("fails", [False, True])
def test_it_is_there_on_an_event_loop(carried, fails):
    """In the handler's own task."""
    message, carrier = carried
    handler = Plain(fails)
    change = asyncio.run(call_async(handler, message, None, LOG))
    assert handler.seen == ["jobs 1 t"]
    assert carrier.left == (["ValueError"] if fails else [])
    assert isinstance(change, Release if fails else Ack)
