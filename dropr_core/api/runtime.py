"""What one process has open of one node.

Owns storage, notifier, bodies, clock, observers and serializers together: how they are opened, that they are used
neither after closing nor across a fork, and that they are closed once. Whatever works on a node from inside this
machine (the public API, daemon, server, worker, command line) works with this. Must not know how a message is
composed, consumed or carried.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import attrs

from dropr_core.api.data_directory import prepare
from dropr_core.api.pauses import Pauses
from dropr_core.api.serialization import Serialization
from dropr_core.api.settler import Settler
from dropr_core.api.staging import Staging
from dropr_core.api.store_trouble import StoreTrouble
from dropr_core.api.unsettled import Unsettled
from dropr_core.config.node import NodeConfig, load
from dropr_core.config.retries import RetryRule
from dropr_core.contracts.bodies import Bodies
from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Inbox, Outbox, Storage
from dropr_core.errors import Closed, StoreError
from dropr_core.model import topics
from dropr_core.model.backoff import Backoff
from dropr_core.model.names import MessageId
from dropr_core.plugin.host import make_context
from dropr_core.plugin.observers import Observers
from dropr_core.plugin.registry import create
from dropr_core.system.clock import SystemClock, open_clock, read_clock
from dropr_core.system.loading import unforked
from dropr_core.system.notifier import Notifier
from dropr_core.system.os_errors import store_errors
from dropr_core.system.ownership import make_private_directory, open_private
from dropr_core.system.shared_document import Documents, FileDocuments

if TYPE_CHECKING:
    from dropr_core.api.channel_limits import ChannelLimits
    from dropr_core.api.effects import Effects
    from dropr_core.api.outboxes import Outboxes


@attrs.frozen
class ChannelRules:
    """What the configuration says about taking from one channel."""

    attempts: int = 10
    backoff: Backoff = attrs.field(factory=lambda: Backoff(1.0, 600.0))
    retention: float = 0.0
    prefetch: int | None = None
    retry: Mapping[str, RetryRule] = attrs.field(factory=dict)
    """By the names of exceptions."""

    def after(self, error: BaseException | None) -> tuple[int, Backoff]:
        """Attempts and backoff of a message whose handler raised an exception; no attempts: it is buried at once."""
        if error is None or not self.retry:
            return self.attempts, self.backoff
        with unforked:
            from dropr_core.api.retry_rules import rule_for

        rule = rule_for(self.retry, error)
        if rule is None:
            return self.attempts, self.backoff
        first = self.backoff.first if rule.backoff_min is None else rule.backoff_min
        cap = self.backoff.cap if rule.backoff_max is None else rule.backoff_max
        return 0 if rule.bury else rule.attempts or self.attempts, Backoff(first, cap)


class Runtime:
    """The open parts of a node. Safe to use from many threads; not across a fork."""

    def __init__(self, config: NodeConfig, storage: Storage, clock: SystemClock, serialization: Serialization,
                 observers: Observers, log: logging.Logger, node_id: bytes) -> None:  # fmt: skip
        """Made by `Runtime.open`."""
        self.config, self.storage, self.clock, self.serialization = config, storage, clock, serialization
        self.observers, self.log, self.node_id = observers, log, node_id
        self.observed = observers.present
        """Whether anybody observes: telling nobody about each message has a price too."""
        self.documents: Documents = FileDocuments(config.data)
        """Where what belongs to the node and is no message stands."""
        self.notifier = Notifier(self.run_directory / "bell")
        self._tell_others: Callable[[str], None] = _no_other_machine
        if storage.shared is not None:
            with unforked:
                from dropr_core.api.site import share

            self.documents, notifier = share(storage.shared, clock, self.run_directory, self._leave_word)
            self.notifier, self._tell_others = notifier, notifier.nudge
        self.staging = Staging(
            storage.outbox, config.data / "staging", lambda: self.notifier.notify(topics.OUTBOX), log
        )
        """Channels with ``durability: interval``."""
        self._bodies: Bodies | None = None
        self.attempts = {
            name: max(channel.attempts, *(rule.attempts or 0 for rule in channel.retry.values()), 0)
            for name, channel in config.channels.items()
        }
        """Of the channels in the configuration: attempts until a message is buried whose consumer died."""
        self.settler = Settler(storage.inbox, StoreTrouble(clock, self.event, log), log)
        """Settles what consumers of this process have noted as done."""
        self.unsettled = Unsettled()
        """What was begun in this process and is perhaps not counted."""
        self.pauses = Pauses(self.documents, clock, self.notifier)
        """Channels of which consumers get nothing for now."""
        self.limits = self._open_limits()
        """Of channels with a `rate` or a `concurrency`; None if there is none."""
        self._default_rules = ChannelRules()
        self._rules = {
            name: ChannelRules(
                channel.attempts,
                Backoff(channel.retry_backoff_min, channel.retry_backoff_max),
                channel.retention,
                channel.prefetch,
                channel.retry,
            )
            for name, channel in config.channels.items()
        }
        self._outboxes: Outboxes | None = None
        self._effects: Effects | None = None
        self._pid = os.getpid()
        self._closed = False

    @property
    def outboxes(self) -> "Outboxes":
        """Databases of the user's in whose transactions something is sent or acknowledged; few nodes have any."""
        if self._outboxes is None:
            with unforked:
                from dropr_core.api.outboxes import Outboxes

            self._outboxes = Outboxes(self.config, self.notifier, large=self.storage.bodies is None)
        return self._outboxes

    @property
    def effects(self) -> "Effects":
        """Which messages have taken effect with a transaction of the user's."""
        if self._effects is None:
            with unforked:
                from dropr_core.api.effects import Effects

            self._effects = Effects(self.name, self.outboxes, self.log)
        return self._effects

    def _open_limits(self) -> "ChannelLimits | None":
        limited = [one for one in self.config.channels.values() if one.rate or one.concurrency]
        if not limited:
            return None
        with unforked:
            from dropr_core.api.channel_limits import limits_of

        return limits_of(limited, self.run_directory / "limits", self.clock, self.notifier)

    @classmethod
    def open(
        cls,
        config: NodeConfig | Path | str,
        *,
        read_only: bool = False,
        log: logging.Logger | None = None,
        make_storage: Callable[[Context], Storage] | None = None,
    ) -> Self:
        """Open what a configuration names; also given as the path of its YAML file.

        ``make_storage``: instead of the storage that the configuration names. Raises ConfigError, PluginError,
        StoreError; nothing stays open then.
        """
        if not isinstance(config, NodeConfig):
            config = load(Path(config))
        log = log or logging.getLogger(f"dropr.{config.node}")
        with store_errors(config.data):
            new = not (config.data / "node.id").exists()
        node_id = prepare(config.data, read_only=read_only)
        if new:
            log.info("a new node: its store, empty as yet, is made in %s", config.data)
        with store_errors(config.data / "clock.json"):
            clock = read_clock(config.data) if read_only else open_clock(config.data)
        observers = Observers()
        context = make_context(config, clock, log, observers, read_only=read_only)
        try:
            for index, component in enumerate(config.observers):
                observers.add(component.use, component.options, context, f"observers.{index}", config.where)
            storage = make_storage(context) if make_storage else _named_storage(config, context)
        except BaseException:
            observers.close()
            raise
        if storage.shared is not None and not read_only:
            with unforked:
                from dropr_core.api.site import join_site

            try:
                node_id = join_site(storage.shared, config.node)
            except BaseException:
                storage.close()
                observers.close()
                raise
        runtime = cls(config, storage, clock, Serialization(config, context), observers, log, node_id)
        if not read_only:
            runtime.take_over()
        return runtime

    @property
    def name(self) -> str:
        """What peers call this node."""
        return self.config.node

    @property
    def outbox(self) -> Outbox:
        """The sending half of the store, with everything that this process has staged; raises Closed."""
        self.check()
        if self.staging.pending:
            with contextlib.suppress(StoreError):  # who only looks can do so; what is staged is tried again
                self.staging.drain()
        return self.storage.outbox

    @property
    def inbox(self) -> Inbox:
        """The receiving half of the store; raises Closed."""
        self.check()
        return self.storage.inbox

    @property
    def bodies(self) -> Bodies:
        """The large bodies of this node. Most never need them: made when somebody asks."""
        if self._bodies is None:
            self._bodies = self.storage.bodies or self._files()
        return self._bodies

    def _files(self) -> Bodies:
        with unforked:
            from dropr_core.bodies.store import BodyFiles

        return BodyFiles(self.config.data / "bodies", self.config.limits.min_free)

    @property
    def run_directory(self) -> Path:
        """Where running processes leave word about themselves."""
        return self.config.data / "run"

    def check(self) -> None:
        """Raise Closed if this may not be used any more, or not in this process."""
        if self._closed:
            raise Closed(f"node {self.name} was closed")
        if os.getpid() != self._pid:
            raise Closed(f"node {self.name} was opened before a fork; open it again in the child")

    def context(self, log: logging.Logger) -> Context:
        """What plugins besides the storage get from this node; they log to ``log``."""
        context = make_context(self.config, self.clock, log, self.observers)
        return attrs.evolve(context, documents=self.documents)

    def rules(self, channel: str) -> ChannelRules:
        """What the configuration says about taking from a channel."""
        return self._rules.get(channel, self._default_rules)

    def event(self, name: str, details: Mapping[str, object]) -> None:
        """Tell observers; those about the store go to ``dropr_store_event``."""
        if self.observed:
            self.observers.tell(self.name, name, details)

    def take_over(self) -> None:
        """Take in what killed processes of this node had staged. A store that fails is said, and tried again later."""
        if self.storage.outbox.staging:
            try:
                self.staging.take_over()
            except StoreError as error:
                self.log.warning(
                    "what killed processes had staged waits in %s: %s", self.config.data / "staging", error
                )

    def retry_now(self, peer: str | None = None) -> None:
        """End the rest of a peer (None: of all): the daemon tries it at once. Raises StoreError: it cannot be told."""
        self._tell_daemon(peer.encode().hex() if peer else "all")

    def announce(self) -> None:
        """This node can be reached from now on: the daemon says so to its peers, which ends their rests. Raises
        StoreError if it cannot be told.
        """
        self._tell_daemon("announce")

    def _tell_daemon(self, word: str) -> None:
        self._leave_word(word)
        self._tell_others(word)

    def _leave_word(self, word: str) -> None:
        directory = self.run_directory / "nudge"
        with store_errors(directory):
            make_private_directory(directory)
            os.close(open_private(directory / word, os.O_CREAT | os.O_WRONLY))
        self.notifier.notify(topics.CONTROL)

    def sweep_bodies(self) -> int:
        """Remove large bodies that no message needs any more. Returns how many."""
        return self.bodies.sweep(
            lambda identity: self.outbox.envelope(identity) is not None or self._is_promised(identity),
            lambda identity: self.inbox.envelope(identity) is not None,
            self.clock.wall(),
        )

    def _is_promised(self, identity: MessageId) -> bool:
        """Whether a transaction of the user's may still bring the message."""
        return bool(self.config.outboxes) and self.outboxes.promises.holds(identity)

    def close(self) -> None:
        """Close the store and what hangs on it; safe twice."""
        if not self._closed:
            self._closed = True
            self.staging.close()
            if os.getpid() == self._pid:
                self.settler.close()
                self.unsettled.close(self.log)
                if self._effects is not None:
                    self._effects.close()
                if self.limits is not None:
                    self.limits.close()
            self.notifier.close()
            if self._bodies is not None:
                self._bodies.close()
            self.storage.close()
            self.observers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _no_other_machine(_word: str) -> None:
    """The daemon runs on this machine."""


def _named_storage(config: NodeConfig, context: Context) -> Storage:
    use = config.storage
    storage: Storage = create("storage", use.use, use.options, context, "storage", config.where)
    return storage
