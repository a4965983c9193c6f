"""What every observer must do, as tests that a plugin author inherits.

    class TestMine(ObserverContract):
        @pytest.fixture
        def observer_case(self):
            return ObserverCase(make=lambda: Counter())

Owns the rules of the observing hooks in hookspecs.py. Must not know what an observer is for.
"""

import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pluggy
import pytest

from dropr_core import hookspecs
from dropr_core.model.facts import MAX_PROPAGATED, PROPAGATED, MessageFacts
from dropr_core.testing.builders import CHANNEL, PEER, SENDER, new_id
from dropr_core.testing.contract import Contract, together, within

TRACED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""The header of a message that is traced."""
KINDS = ("storage", "transport", "keypair", "asgi", "serializer", "handler", "gateway", "observer")
MAKERS = frozenset(f"dropr_{kind}" for kind in KINDS)


@attrs.frozen
class ObserverCase:
    """What the tests need to know about an observer."""

    make: Callable[[], object]
    """A new one (or the module, if the module itself observes)."""


def events(times: int = 1) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every hook of an observer with arguments as the host passes them, and as a newer host might."""
    id_ = new_id()
    facts = MessageFacts(id_, SENDER, CHANNEL, {"traceparent": TRACED}, 1.0, 100)
    for _ in range(times):
        yield "dropr_message_queued", {
            "node": SENDER, "id": id_, "channel": CHANNEL, "peers": (PEER, "berlin"), "facts": facts,
        }  # fmt: skip
        for side in ("inbox", "outbox"):
            yield "dropr_batch_accepted", {
                "node": SENDER, "side": side, "peer": PEER, "count": 3, "messages": (facts,) * 3, "seconds": 0.1,
            }  # fmt: skip
        yield "dropr_peer_down", {"node": SENDER, "peer": PEER, "reason": "no route to host"}
        yield "dropr_peer_up", {"node": SENDER, "peer": PEER}
        yield "dropr_message_claimed", {
            "node": SENDER, "id": id_, "channel": CHANNEL, "attempt": 1, "facts": facts,
        }  # fmt: skip
        for outcome in ("ack", "release", "bury"):
            yield "dropr_message_settled", {"node": SENDER, "id": id_, "channel": CHANNEL, "outcome": outcome}
        for event in ("rolled_back", "full", "an_event_of_a_newer_dropr"):
            details = types.MappingProxyType({"id": "x", "unknown": [1]})
            yield "dropr_store_event", {"node": SENDER, "event": event, "details": details}


class ObserverContract(Contract):
    """Inherit, and override the fixture `observer_case`."""

    @pytest.fixture
    def observer_case(self) -> ObserverCase:
        """Override this."""
        raise NotImplementedError("write the fixture observer_case in your test class")

    @pytest.fixture
    def observer(self, observer_case: ObserverCase) -> Any:
        """A fresh one, closed after the test."""
        observer = observer_case.make()
        yield observer
        within(self.patience, lambda: self.end(observer), "close")

    @pytest.fixture
    def hooks(self, observer: object) -> Any:
        """The hooks, with this observer alone behind them."""
        return self.register(observer).hook

    @staticmethod
    def register(observer: object) -> pluggy.PluginManager:
        """Have pluggy check and take an observer, as the host does."""
        manager = pluggy.PluginManager("dropr")
        manager.add_hookspecs(hookspecs)
        manager.register(observer)
        manager.check_pending()
        return manager

    @staticmethod
    def end(observer: object) -> None:
        """Close it, if it can be closed."""
        close = getattr(observer, "close", None)
        if close is not None and not inspect.ismodule(observer):
            close()

    def test_its_hooks_are_those_of_dropr(self, observer: object) -> None:
        """Every marked method has a known name and known arguments, and there is one at least."""
        callers = self.register(observer).get_hookcallers(observer) or []
        assert {caller.name for caller in callers} - MAKERS, "it observes nothing: mark a method with @hookimpl"

    def test_every_event_is_taken(self, hooks: Any) -> None:
        """No event raises, one of a newer dropr and one told twice included."""
        for hook, arguments in events(times=2):
            getattr(hooks, hook)(**arguments)

    def test_arguments_may_be_missing(self, hooks: Any) -> None:
        """An older or newer host may not know every argument: None stands for it, and raises nothing."""
        for hook, arguments in events():
            if hook != "dropr_store_event":
                getattr(hooks, hook)(**{**dict.fromkeys(arguments), "node": SENDER})

    def test_it_is_quick(self, hooks: Any) -> None:
        """A thousand events are taken soon: it is called in the thread that sends or receives."""

        def tell() -> None:
            for hook, arguments in events(times=100):
                getattr(hooks, hook)(**arguments)

        within(self.patience, tell, "1100 events")

    def test_many_threads_tell_it(self, hooks: Any, strength: int) -> None:
        """It is told from several threads at once."""

        def tell() -> None:
            for hook, arguments in events(times=10 * strength):
                getattr(hooks, hook)(**arguments)

        together(self.patience, [tell] * 4, "events told in four threads")

    def test_what_it_adds_to_a_message_may_travel(self, hooks: Any) -> None:
        """Headers that it adds to what is sent are texts under the names that may be added, and small."""
        for _ in range(3):
            for added in hooks.dropr_message_headers(node=SENDER, channel=CHANNEL):
                assert set(added) <= PROPAGATED
                assert [name for name, value in added.items() if not isinstance(value, str)] == []
                assert sum(len(name) + len(value) for name, value in added.items()) <= MAX_PROPAGATED

    def test_a_handler_goes_on_within_it(self, hooks: Any) -> None:
        """What it puts around a handler's call can be entered and left, twice within each other, and lets the
        handler's exceptions through.
        """
        facts = MessageFacts(new_id(), SENDER, CHANNEL, {"traceparent": TRACED}, 1.0, 100)
        for outer in hooks.dropr_message_handling(node=SENDER, facts=facts, attempt=1):
            with pytest.raises(LookupError, match="the handler's own"), outer:  # noqa: PT012
                for inner in hooks.dropr_message_handling(node=SENDER, facts=facts, attempt=2):
                    with inner:
                        pass
                raise LookupError("the handler's own")

    def test_close_twice(self, observer_case: ObserverCase) -> None:
        """Where it has a `close`, it comes back and may be called again."""
        observer = observer_case.make()
        for hook, arguments in events():
            getattr(self.register(observer).hook, hook)(**arguments)
        within(self.patience, lambda: self.end(observer), "close")
        within(self.patience, lambda: self.end(observer), "the second close")


__all__ = ["ObserverCase", "ObserverContract", "events"]
