"""All links of one node: builds pushers and pullers from the configuration, and turns them.

Owns which peers are served how; the daemon only calls `turn`. Must not know signals, sleeping or
the process around it.
"""

import logging
import random
from collections.abc import Callable, Mapping

from dropr_core.api.runtime import Runtime
from dropr_core.api.store_trouble import READ, StoreTrouble
from dropr_core.config.node import NodeConfig, PeerConfig
from dropr_core.contracts.storage import LaneStats, PeerState
from dropr_core.contracts.transport import Connection, Transport
from dropr_core.delivery.body_upload import UploadBudget
from dropr_core.delivery.late_receipts import LateReceipts
from dropr_core.delivery.peer_client import PeerClient
from dropr_core.delivery.puller import Puller
from dropr_core.delivery.push_budget import PushBudget
from dropr_core.delivery.pusher import Pusher
from dropr_core.delivery.talk_record import TalkRecord
from dropr_core.delivery.transports import Transports
from dropr_core.errors import PluginError, UsageError
from dropr_core.model import topics
from dropr_core.model.backoff import Backoff
from dropr_core.model.names import StoreId
from dropr_core.protocol.access import Access
from dropr_core.protocol.link import Link, LinkSettings
from dropr_core.system.log_fields import about

BY_CONFIG = "configuration: "
_NOTHING = PeerState()
"""Prefix of the reason of a hold that the configuration caused, and a better one ends."""


class Links:
    """Pushers and pullers of one node, used by one thread."""

    def __init__(
        self, runtime: Runtime, transports: Transports, post: Callable[[Callable[[], None]], None],
        log: logging.Logger, trouble: StoreTrouble | None = None, rng: random.Random | None = None,
    ) -> None:  # fmt: skip
        self._runtime, self._transports, self._post, self._log = runtime, transports, post, log
        self._trouble = trouble or StoreTrouble(runtime.clock, runtime.event, log)
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not secrets
        self.pushers: dict[str, Pusher] = {}
        self.pullers: dict[str, Puller] = {}
        self.refused: dict[str, str] = {}
        """Peers that cannot be served, and why."""
        self._records: dict[str, TalkRecord] = {}
        self._quiet: dict[str, tuple[PeerState | None, float | None]] = {}
        """Peers for which nothing waits and nothing was to do: the state as it was then, and when to look again."""
        self.stirs = 0
        """Grows with whatever may change the `report`."""
        self._budget = UploadBudget()
        self._room = PushBudget()
        self._late = LateReceipts(runtime.outbox, runtime.clock, self._trouble)
        self.unloaded = False
        """Whether a message with a large body was settled lately, so that the body may go."""
        self._build(runtime.config)

    def _build(self, config: NodeConfig) -> None:
        for name, peer in config.peers.items():
            try:
                if peer.mode == "push":
                    self.pushers[name] = self._pusher(config, name, peer)
                if self._fetches(config, peer):
                    self.pullers[name] = self._puller(config, name, peer)
            except (PluginError, UsageError) as error:
                self.refused[name] = str(error)
                self._log.error(
                    "%s: cannot be served, its deliveries are held: %s", name, error, extra=about(peer=name)
                )
        for name in self._runtime.outbox.peers():
            if name not in config.peers:
                self.refused[name] = "no longer in the configuration"
        states = self._runtime.outbox.peers()
        for name, reason in self.refused.items():
            if not (name in states and states[name].held):
                self._runtime.outbox.hold(name, BY_CONFIG + reason)
        for name, state in states.items():
            if state.held and state.reason.startswith(BY_CONFIG) and name not in self.refused:
                self._runtime.outbox.release(name)
                self._log.info("%s: can be served again", name, extra=about(peer=name))

    @staticmethod
    def _fetches(config: NodeConfig, peer: PeerConfig) -> bool:
        if peer.url is None or peer.mode == "pull":
            return False
        return not config.listen if peer.fetch is None else peer.fetch

    def _talk(self, config: NodeConfig, name: str, peer: PeerConfig) -> PeerClient:
        url = peer.url or ""
        transport: Transport = self._transports.for_url(url)
        if problem := transport.check(url, listen=False):
            raise UsageError(f"url {url}: {problem}")

        def connect() -> Connection:
            return transport.connect(url)

        def post(call: Callable[[], None]) -> None:
            def heard() -> None:
                self._quiet.pop(name, None)
                self.stirs += 1
                call()

            self._post(heard)

        record = self._records.setdefault(name, TalkRecord(self._runtime.clock))
        return PeerClient(config.node, name, peer.keys, connect, post, config.delivery.idle_timeout, record.note)

    def _pusher(self, config: NodeConfig, name: str, peer: PeerConfig) -> Pusher:
        delivery, limits = config.delivery, config.limits
        settings = LinkSettings(
            backoff=Backoff(delivery.backoff_min, delivery.backoff_max), max_count=limits.batch_count
        )
        return Pusher(
            Link(name, settings, self._rng),
            self._talk(config, name, peer),
            self._runtime.outbox,
            self._runtime.clock,
            node_id=self._runtime.node_id,
            on_reset=delivery.on_peer_reset,
            batch_bytes=limits.batch_bytes,
            notify=self._runtime.notifier.notify,
            event=self._runtime.event,
            log=self._log,
            bodies=self._runtime.bodies,
            budget=self._budget,
            room=self._room,
            trouble=self._trouble,
            late=self._late,
        )

    def _puller(self, config: NodeConfig, name: str, peer: PeerConfig) -> Puller:
        return Puller(
            name,
            self._talk(config, name, peer),
            self._runtime.inbox,
            self._runtime.clock,
            node_id=self._runtime.node_id,
            allows=Access((), peer.may_write).allows,
            max_body=config.limits.max_body,
            backoff=Backoff(config.delivery.backoff_min, config.delivery.backoff_max),
            rng=self._rng,
            notify=self._runtime.notifier.notify,
            event=self._runtime.event,
            log=self._log,
            bodies=self._runtime.bodies,
            trouble=self._trouble,
        )

    @property
    def shipping(self) -> bool:
        """Whether a push is under way to any peer."""
        return self._room.under_way > 0

    @property
    def topics(self) -> tuple[str, ...]:
        """What to listen to besides the outbox: receipts for peers that we fetch from."""
        return tuple(topics.outcomes(name) for name in self.pullers)

    def turn(self) -> float | None:
        """Do what can be done now; the node time at which to be called again at the latest."""
        wakes = self._turn_pushers()  # first: a message that waits is what this process was most likely woken for
        wakes += [puller.turn() for puller in self.pullers.values()]
        self.stirs += len(self.pullers)
        if self._budget.settled:
            self._budget.settled, self.unloaded = False, True
        wakes.append(self._trouble.wakes_at)
        return min((wake for wake in wakes if wake is not None), default=None)

    def _turn_pushers(self) -> list[float | None]:
        """Turn those that may have something to do: where nothing waits, nothing changed, and nobody answered since the
        last time, there is nothing. Of a thousand peers most are quiet, and each message of the others is a turn.
        """
        thing = (READ, "outbox")
        if not self.pushers or self._trouble.rests(thing):
            return []
        lanes: dict[str, list[LaneStats]] = {}
        states: Mapping[str, PeerState] = {}
        store: StoreId | None = None
        said = False
        with self._trouble.guard(thing):
            stands, states, store = self._runtime.outbox.standing()
            for stats in stands:
                lanes.setdefault(stats.lane.peer, []).append(stats)
            said = True
        if not said:  # what waits for each peer the store cannot say now
            return []
        wakes, now, quiet = list[float | None](), self._runtime.clock.now(), self._quiet
        for name, pusher in self.pushers.items():
            waiting, state = lanes.get(name), states.get(name)
            known = None if waiting or self._late.expected_from(name) else quiet.get(name)
            if known is not None and known[0] == state and (known[1] is None or known[1] > now):
                wakes.append(known[1])
                continue
            quiet.pop(name, None)
            self.stirs += 1
            wake = pusher.turn(waiting or (), state or _NOTHING, store)
            wakes.append(wake)
            if not waiting:
                quiet[name] = state, wake
        return wakes

    def reset_backoff(self, peer: str | None) -> None:
        """A peer talked to us, or a person said retry (None: to all)."""
        self._quiet.clear()
        self.stirs += 1
        for name, pusher in self.pushers.items():
            if peer in {None, name}:
                pusher.link.reset_backoff()
                if pusher.uploads is not None:
                    pusher.uploads.reset_backoff()
        for name, puller in self.pullers.items():
            if peer in {None, name}:
                puller.reset_backoff()

    def announce(self) -> None:
        """Talk once to each peer that is called from here: this node can be reached again, and they may be resting."""
        self._quiet.clear()
        for name, pusher in self.pushers.items():
            if name not in self.pullers:  # who is fetched from is talked to all the time
                pusher.link.announce()

    def report(self) -> dict[str, dict[str, object]]:
        """State of each peer for people: peer → state and since when, reason, failures, next try (times are node time).

        What changes with every answer stands under ``moving``.
        """
        out: dict[str, dict[str, object]] = {}
        for name, pusher in self.pushers.items():
            link = pusher.link
            down = "" if link.idle else link.down_reason or ""
            state = "resting" if down else "up" if link.welcome and not link.down_reason else "idle"
            out[name] = {"state": state, "reason": down, "failures": link.failures,
                         "next_try": link.next_try if down else None}  # fmt: skip
            if pusher.uploads is not None and (progress := pusher.uploads.progress):
                out[name]["body"] = progress
            if pusher.uploads is not None and (unreadable := pusher.uploads.unreadable):
                out[name]["unreadable"] = unreadable
        for name, puller in self.pullers.items():
            mine: dict[str, object] = {"state": "resting" if puller.down_reason else "up",
                                       "reason": puller.down_reason or "", "failures": puller.failures,
                                       "next_try": puller.rest_until if puller.down_reason else None}  # fmt: skip
            if name in out:
                out[name]["fetch"] = mine
            else:
                out[name] = mine
        for name, reason in self.refused.items():
            out[name] = {"state": "refused", "reason": reason, "failures": 0, "next_try": None}
        for name, record in self._records.items():
            if (shown := out.get(name)) is not None:
                shown["moving"] = {**record.report(), "in_flight": self._in_flight(name)}
                fetch = shown.get("fetch") if shown["state"] == "idle" else None
                news = fetch if isinstance(fetch, dict) else shown
                shown["since"] = record.since(str(news["state"]))
        return out

    def _in_flight(self, name: str) -> int:
        """Deliveries in pushes to a peer that are not answered yet."""
        pusher = self.pushers.get(name)
        return 0 if pusher is None else pusher.in_flight

    @property
    def busy(self) -> bool:
        """Whether a push is under way (long polls do not count: they may be dropped)."""
        return any(pusher.link.shipping for pusher in self.pushers.values())

    def close(self) -> None:
        """Give up what is under way; safe twice."""
        for pusher in self.pushers.values():
            pusher.close()
        for puller in self.pullers.values():
            puller.close()
