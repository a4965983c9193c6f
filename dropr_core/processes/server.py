"""The server runner: listeners around an endpoint. Killing it at any moment loses nothing.

Owns the process: doors, signals, reload, its report for `dropr status`.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dropr_core.angel.heartbeat import Heartbeat, RecycleLimits
from dropr_core.api.node import Node
from dropr_core.api.runtime import Runtime
from dropr_core.api.store_trouble import StoreTrouble
from dropr_core.config.node import NodeConfig, load
from dropr_core.contracts.transport import Listener
from dropr_core.delivery.transports import Transports
from dropr_core.errors import ConfigError, DroprError, StoreError
from dropr_core.monitor.host import Guest, serves_monitor
from dropr_core.plugin.registry import asgi_application, transport_for
from dropr_core.processes.mainloop import MainLoop
from dropr_core.protocol.access import Access
from dropr_core.protocol.endpoint import Endpoint, Limits
from dropr_core.serving.at_once import AtOnce
from dropr_core.serving.contacts import note_contact
from dropr_core.serving.dispatcher import Dispatcher
from dropr_core.serving.joining import JoinDesk
from dropr_core.serving.node_secret import FetchingPeers, node_secret
from dropr_core.serving.refusals import tell_version
from dropr_core.system.exit_codes import Exit
from dropr_core.system.os_errors import store_errors
from dropr_core.system.presence import Presence

COME_AGAIN = "peers keep what they have and come again"


def run(config: NodeConfig, *, path: Path | None = None, heart: Heartbeat | None = None) -> int:
    """Answer peers until told to stop. Returns an exit code. Raises Unreachable if a door cannot open."""
    heart = heart or Heartbeat.from_environment()
    log = logging.getLogger("dropr.server")
    with Runtime.open(config) as runtime, MainLoop(heart) as loop:
        transports = Transports(config.transports, runtime.context(log), config.where)
        dispatcher = make_dispatcher(runtime, log, transports, AtOnce())
        listeners: list[Listener] = []
        presence = Presence(runtime.run_directory, "server")
        monitor = Guest(runtime, logging.getLogger("dropr.monitor")) if serves_monitor(config, "server") else None
        try:
            for url in config.listen:
                listeners.append(transports.for_url(url).listen(url, dispatcher))
            urls = [listener.url for listener in listeners]
            with store_errors(presence.path):
                presence.announce({"urls": urls})
            log.info("server of %s listens on %s", runtime.name, ", ".join(urls) or "nothing")
            heart.ready()
            _announce(runtime, log)
            if monitor is not None:
                monitor.start()
            recycling = RecycleLimits(None, config.angel.max_memory)
            while not loop.stopping:
                loop.run_posts()
                if loop.reload:
                    loop.reload = False
                    _reload(path, dispatcher, log)
                if reason := recycling.due(0):
                    log.info("asks for a fresh start: %s", reason)
                    return Exit.RECYCLE
                loop.sleep(None)
        finally:
            presence.withdraw()
            if monitor is not None:
                monitor.close()
            dispatcher.close_waiting()
            for listener in listeners:
                listener.close(drain=config.angel.drain)
            dispatcher.close()
            transports.close()
        log.info("server stopped")
        return Exit.OK


def _announce(runtime: Runtime, log: logging.Logger) -> None:
    try:
        runtime.announce()
    except StoreError as error:  # a full disk: peers come by themselves, a little later
        log.warning("peers are not told that this node can be reached again: %s", error)


def make_dispatcher(
    runtime: Runtime, log: logging.Logger, transports: Transports | None = None, at_once: AtOnce | None = None
) -> Dispatcher:
    """Everything that answers requests for a node; also what `asgi` mounts, into a loop that is not ours to hold up.
    ``transports``: those that are open. ``at_once``: where the loop is ours.
    """
    config = runtime.config
    made = transports or Transports(config.transports, runtime.context(log), config.where)
    # Peers come again by themselves, so nothing rests by it; observers are told by the endpoint.
    trouble = StoreTrouble(runtime.clock, lambda _name, _details: None, log, COME_AGAIN)

    def store_said(peer: str, verb: str, error: StoreError | None) -> None:
        if error is None:
            trouble.worked((verb, peer))
        else:
            trouble.failed((verb, peer), error)

    def event(name: str, details: Mapping[str, object]) -> None:
        if name == "other_version":
            tell_version(log, details)
        runtime.event(name, details)

    def usable(url: str) -> bool:
        try:
            return made.for_url(url).check(url, listen=False) is None
        except (DroprError, ValueError):  # a url of another kind than this node speaks
            return False

    def joined(config: NodeConfig) -> None:
        endpoint.access = access_of(config)

    endpoint = Endpoint(
        config.node,
        runtime.node_id,
        access_of(config),
        runtime.outbox,
        runtime.inbox,
        limits=Limits(config.limits.batch_bytes, config.limits.batch_count, config.limits.max_body),
        bodies=runtime.bodies,
        on_reset=config.delivery.on_peer_reset,
        notify=runtime.notifier.notify,
        event=event,
        store_said=store_said,
        joins=JoinDesk(config, usable, joined, log, runtime.documents),
        secret=node_secret(runtime.documents, runtime.clock),
        begun=FetchingPeers(runtime.documents),
    )

    def alive(peer: str) -> None:
        note_contact(runtime.run_directory, peer)
        # Only if something waits for it: else the daemon has no reason to get up.
        try:
            state = runtime.outbox.peers().get(peer)
            if state is not None and (state.waiting or state.awaiting):
                runtime.retry_now(peer)
        except (StoreError, OSError):  # a full disk: the peer's request must be answered all the same
            return

    return Dispatcher(endpoint, runtime.notifier, runtime.clock, alive, log, at_once=at_once)


def asgi(node: Node) -> Any:
    """The answering side of an open node as an ASGI application; it comes from the transport that serves ``http://``.
    `Lifespan.receiver` is that for a node that lives as long as its application.

    Any number of processes may answer for a node. Closed with `close()` of the application's ``dispatcher``, or with
    the process.
    """
    transport = transport_for("http", node.config.transports)
    return asgi_application(transport, make_dispatcher(node.runtime, logging.getLogger("dropr.server")))


def access_of(config: NodeConfig) -> dict[str, Access]:
    """Who may ask here, from the configuration."""
    return {name: Access(peer.keys, peer.may_write) for name, peer in config.peers.items()}


def _reload(path: Path | None, dispatcher: Dispatcher, log: logging.Logger) -> None:
    if path is None:
        return
    try:
        dispatcher.endpoint.access = access_of(load(path))
        log.info("reloaded: peers and their rights (listen addresses change with a restart)")
    except ConfigError as error:
        log.error("reload: the old configuration stays active:\n%s", error)
