"""The configuration of a node: one YAML file → one frozen `NodeConfig`, every reference checked.

Owns the top of the file, and what its parts say of each other. Mistakes come all at once, each with
file, line, path and what would be right. Whether a plugin exists is asked when it is needed.
"""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import attrs

from dropr_core.config import yamlfile
from dropr_core.config.interpolation import NOWHERE, SourceLocation, expand
from dropr_core.config.options import Reader, given, own, path, suggest
from dropr_core.config.options import option as _option
from dropr_core.config.outboxes import OutboxConfig, read_database
from dropr_core.config.schedules import ScheduleConfig, with_webhooks
from dropr_core.config.schema import (
    GATEWAYS_SCHEMA,
    MIN_KEY,
    MONITOR_SCHEMES,
    AngelConfig,
    ChannelConfig,
    Component,
    DeliveryConfig,
    GatewayConfig,
    Limits,
    LogsConfig,
    MonitorConfig,
    PeerConfig,
    TopicConfig,
    WorkerConfig,
    component,
    read_components,
    read_gateways,
)
from dropr_core.errors import ConfigError, UnknownPeer, UsageError
from dropr_core.model.names import check_channel, check_name
from dropr_core.system.loading import unforked

Role = Literal["daemon", "server", "worker", "gateway", "monitor"]
_ANY: Mapping[str, Any] = {"type": "array"}


def _check_module(text: str) -> None:
    with unforked:
        from dropr_core.config.targets import check_module

    check_module(text)


@attrs.frozen(kw_only=True)
class NodeConfig:
    """Everything that one node's file says."""

    node: str = _option(doc="What peers call this node.", check=lambda text: check_name(text, "node"))
    data: Path = path(None, doc="Its directory, on a local disk.", unset="NODE-data beside this file")
    storage: Component = component(Component("sqlite"), "The plugin that keeps the durable queue.")
    listen: tuple[str, ...] = _option((), doc="URLs at which peers reach this node.")
    peers: Mapping[str, PeerConfig] = _option(dict, doc="The other nodes.", check_key=lambda k: check_name(k, "peer"))
    groups: Mapping[str, tuple[str, ...]] = _option(
        dict, doc="Names for several peers.", check_key=lambda key: check_name(key, "group")
    )
    channels: Mapping[str, ChannelConfig] = _option(dict, doc="Channels with their rules.", check_key=check_channel)
    topics: Mapping[str, TopicConfig] = _option(
        dict, doc="Topics that are published here, with their rules.", check_key=check_channel
    )
    schedules: Mapping[str, ScheduleConfig] = _option(
        dict, doc="What happens at times of the clock.", check_key=lambda key: check_name(key, "schedule")
    )
    outboxes: Mapping[str, OutboxConfig] = _option(
        dict,
        doc="The application's own databases: what is sent within a transaction of theirs waits there.",
        check_key=lambda key: check_name(key, "outbox"),
    )
    transports: Mapping[str, Mapping[str, Any]] = _option(
        dict, doc="Options of transports, by plugin name.", show=False, check_key=lambda k: check_name(k, "transport")
    )
    observers: tuple[Component, ...] = own(
        read_components, "list of plugins", _ANY, default=(), doc="Plugins that are told what happens."
    )
    handlers: tuple[str, ...] = _option(
        (),
        doc="Modules whose functions with `@dropr_core.on(CHANNEL)` `dropr worker` calls.",
        check=_check_module,
    )
    gateways: Mapping[str, GatewayConfig] = own(
        read_gateways, "gateways by name", GATEWAYS_SCHEMA, default=dict,
        doc="Doors for programs that speak a foreign dialect (beanstalkd, STOMP, SQS …), by plugin name.",
    )  # fmt: skip
    run: tuple[Role, ...] = _option(
        (),
        doc="What `dropr up` keeps alive.",
        unset="daemon; server if `listen`; worker if any channel has a handler, or `handlers`, or `topics`; "
        "gateway if `gateways`; "
        "monitor if `monitor` listens and there is no server, which serves it as well",
    )
    limits: Limits = _option(Limits, doc="Limits of this node.")
    delivery: DeliveryConfig = _option(DeliveryConfig, doc="How messages are carried.")
    worker: WorkerConfig = _option(WorkerConfig, doc="How `dropr worker` works.")
    angel: AngelConfig = _option(AngelConfig, doc="How `dropr up` watches.")
    logs: LogsConfig = _option(LogsConfig, doc="What the processes of this node say, and where.")
    monitor: MonitorConfig = _option(MonitorConfig, doc="The page that shows how this node does.")
    insecure: Literal[False, True, "really"] = _option(
        False, doc="Peers without a key: `true` allows them on loopback, `really` anywhere. Anybody can be that peer."
    )

    where: SourceLocation = given(NOWHERE, repr=False, eq=False)
    """The file, for what its plugins find wrong with their options, and for relative paths in them."""

    def resolve(self, target: str) -> tuple[str, ...]:
        """The peers that a peer's or group's name stands for. Raises UnknownPeer."""
        if target in self.peers:
            return (target,)
        if target in self.groups:
            return tuple(dict.fromkeys(peer for name in self.groups[target] for peer in self.resolve(name)))
        raise UnknownPeer(f"no peer or group {target!r}{suggest(target, [*self.peers, *self.groups])}")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What works but should be known: messages that travel signed but not encrypted, words of old."""
        urls = [(f"peers.{name}.url", peer.url) for name, peer in self.peers.items() if peer.url]
        urls += [("listen", url) for url in self.listen]
        found = [
            f"{where}: {url} is signed but not encrypted; others on the way can read it; use https"
            for where, url in urls
            if urlsplit(url).scheme == "http" and not _is_loopback(url)
        ]
        if (count := self.worker.concurrency) is not None:
            found.append(
                f"worker.concurrency: {count} is taken as `threads: {count}`, its name today; `processes` uses cores"
            )
        return tuple(found)


def load(file: Path | str) -> NodeConfig:
    """The configuration in a file. Raises ConfigError with every mistake."""
    file = Path(file)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        advice = f"; `dropr init {file}` writes one to begin with" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError([f"{file}: cannot be read: {reason}{advice}"]) from error
    config = parse(text, file.absolute().parent, str(file))
    _refuse_second_store(file, config)
    return config


def _refuse_second_store(file: Path, config: NodeConfig) -> None:
    """Relative paths count from the file as it was named, not from where a symbolic link leads: links are switched
    (Kubernetes does with each change of a ConfigMap), and a store must not move by that. Raises ConfigError if a store
    stands where the link leads and none where the file was named: a new, empty one would take its place.
    """
    named, real = file.absolute().parent, file.resolve().parent
    if named == real or not config.data.is_relative_to(named):
        return
    other = real / config.data.relative_to(named)
    if (other / "node.id").exists() and not (config.data / "node.id").exists():
        problem = (
            f"{file} is a symbolic link: its node would begin with an empty store in {config.data}, but one is in "
            f"{other}; name the right directory with an absolute `data:`"
        )
        raise ConfigError([problem])


def parse(text: str, directory: Path, name: str = "<text>") -> NodeConfig:
    """The configuration in a text; relative paths are relative to ``directory``. Raises ConfigError."""
    document = yamlfile.read(text, name)
    return _read(document.mapping, SourceLocation(name, directory, document.lines))


def from_mapping(mapping: Mapping[str, Any], directory: Path) -> NodeConfig:
    """The configuration from a program's own mapping. Raises ConfigError."""
    return _read(mapping, SourceLocation("", directory))


def _read(mapping: Mapping[str, Any], where: SourceLocation) -> NodeConfig:
    tree, where = expand(mapping, where)
    reader = Reader(where)
    config = reader.read(NodeConfig, tree, (), where=where)
    if config is not None:
        if not _is_utf8(config.data or where.directory):
            reader.mistake(("data",), "its path is no UTF-8 text, which not every storage can open; rename it")
        _check(reader, config)
    reader.finish()
    config = cast("NodeConfig", config)
    if config.schedules:
        config = attrs.evolve(config, channels=with_webhooks(config.channels, config.schedules))
    return attrs.evolve(
        config,
        data=config.data or where.directory / f"{config.node}-data",
        run=config.run or _default_run(config),
        peers=MappingProxyType(dict(config.peers)),
        worker=_with_threads(config.worker),
    )


def _with_threads(worker: WorkerConfig) -> WorkerConfig:
    """`concurrency`, the old name of `threads`, is only read here."""
    return worker if worker.concurrency is None else attrs.evolve(worker, threads=worker.concurrency)


def _default_run(config: NodeConfig) -> tuple[Role, ...]:
    run: list[Role] = ["daemon"]
    if config.listen:
        run.append("server")
    if config.topics or config.handlers or any(channel.handler for channel in config.channels.values()):
        run.append("worker")
    if config.gateways:
        run.append("gateway")
    if config.monitor is not None and config.monitor.listen and "server" not in run:
        run.append("monitor")
    return tuple(run)


def _check(reader: Reader, config: NodeConfig) -> None:
    known = [*config.peers, *config.groups]
    for name in config.groups:
        if name in config.peers:
            reader.mistake(("groups", name), f"'{name}' is a peer as well; give the group another name")
        if not config.groups[name]:
            reader.mistake(("groups", name), "has no member; what is sent to it would reach nobody")
        _check_targets(reader, ("groups", name), config.groups[name], list(config.peers), "peer")
    for name, channel in config.channels.items():
        _check_targets(reader, ("channels", name, "to"), channel.to, known, "peer or group")
        if channel.retry_backoff_max < channel.retry_backoff_min:
            reader.mistake(("channels", name, "retry_backoff_max"), "is less than retry_backoff_min; swap the two")
        for kind, rule in channel.retry.items():
            least, most = rule.backoff_min, rule.backoff_max
            least = channel.retry_backoff_min if least is None else least
            if least > (channel.retry_backoff_max if most is None else most):
                reader.mistake(("channels", name, "retry", kind), "its backoff_min is more than its backoff_max")
        if channel.burst is not None and channel.rate is None:
            reader.mistake(("channels", name, "burst"), "says nothing without a rate; write one, such as rate: 10/s")
        if channel.expires_in is not None and (channel.delay or 0) >= channel.expires_in:
            reader.mistake(("channels", name, "expires_in"), "is not more than delay: every message would expire")
    for name in config.topics:
        if name in config.channels and config.channels[name].to:
            reader.mistake(
                ("topics", name), "is published where its channel leads (`to:`); declare the topic there alone"
            )
    for name, schedule in config.schedules.items():
        _check_schedule(reader, config, name, schedule)
    for name, outbox in config.outboxes.items():
        if not reader.wrong("outboxes", name):
            try:
                read_database(outbox.url, config.where.directory)
            except UsageError as error:  # it does not show the URL
                reader.mistake(("outboxes", name, "url"), str(error))
    for name, peer in config.peers.items():
        _check_peer(reader, config, name, peer)
    for index, url in enumerate(config.listen):
        _check_url(reader, url, ("listen", index))
    for role in set(config.run):
        if config.run.count(role) > 1:
            reader.mistake(("run",), f"names {role} twice; once is enough")
    open_peers = [name for name, peer in config.peers.items() if not peer.keys]
    if open_peers and config.insecure is True:
        for index, url in enumerate(config.listen):
            if not _is_loopback(url):
                reader.mistake(("listen", index), f"peer '{open_peers[0]}' has no key, so this node may listen on "
                               "loopback only; give it a key, or say insecure: really")  # fmt: skip
    if config.monitor is not None:
        _check_monitor(reader, config.monitor)
    worker = config.worker
    if worker is not None and worker.concurrency not in (None, worker.threads) and worker.threads != 1:
        reader.mistake(("worker", "concurrency"), "is the old name of threads, which is given as well; remove it")
    for kind in ("delivery", "angel"):
        section = getattr(config, kind)
        if section is not None and section.backoff_max < section.backoff_min:
            reader.mistake((kind, "backoff_max"), "is less than backoff_min; swap the two")


def _check_monitor(reader: Reader, monitor: MonitorConfig) -> None:
    if monitor.listen:
        with unforked:
            from dropr_core.system.address import read_address
    for index, url in enumerate(monitor.listen):
        address = read_address(url, MONITOR_SCHEMES)
        if isinstance(address, str):
            reader.mistake(("monitor", "listen", index), address)
        elif not address.local and address.scheme == "http" and not monitor.insecure:
            reader.mistake(
                ("monitor", "listen", index),
                f"{url} can be reached from elsewhere, and others on the way can read the token: listen on 127.0.0.1, "
                "use https://HOST:PORT?cert=FILE&key=FILE, or say insecure: true",
            )
    if monitor.token is not None and len(monitor.token) < MIN_KEY:
        reader.mistake(
            ("monitor", "token"), f"is shorter than {MIN_KEY} characters; leave it out, and the node makes one"
        )


def _check_schedule(reader: Reader, config: NodeConfig, name: str, schedule: ScheduleConfig) -> None:
    steps = ("schedules", name)
    if reader.wrong(*steps):
        return
    try:
        schedule.check()
    except UsageError as error:
        reader.mistake(steps, str(error))
        return
    _check_targets(reader, (*steps, "to"), schedule.to, [*config.peers, *config.groups], "peer or group")
    channel = config.channels.get(schedule.target)
    if schedule.webhook is not None:
        if channel is not None and (channel.handler is not None or channel.to):
            reader.mistake(
                ("channels", schedule.target), f"belongs to the webhook of schedules.{name}: no handler, no to"
            )
    elif not isinstance(schedule.value, str | None) and (channel is None or channel.serializer is None):
        reader.mistake(
            (*steps, "value"),
            f"needs a serializer: channels: {{{schedule.target}: {{serializer: json}}}}; or say `text`",
        )


def _check_peer(reader: Reader, config: NodeConfig, name: str, peer: PeerConfig) -> None:
    steps = ("peers", name)
    if name == config.node:
        reader.mistake(steps, "is this node itself; its own consumers get what `put` stores")
    if peer.url is not None:
        _check_url(reader, peer.url, (*steps, "url"))
    elif peer.mode == "push" and not reader.wrong(*steps):
        reader.mistake(steps, "has no url; say where it listens, or `mode: pull` if it fetches its mail from here")
    if peer.fetch and peer.url is None:
        reader.mistake((*steps, "fetch"), "needs the peer's url; say where it listens")
    if not peer.keys and not reader.wrong(*steps, "key"):
        if not config.insecure:
            reader.mistake(steps, "has no key; `dropr keygen` makes one for both nodes (or insecure: true, for tests)")
        elif config.insecure is True and peer.url is not None and not _is_loopback(peer.url):
            reader.mistake(steps, "has no key and is not on loopback; give it a key, or say insecure: really")


def _check_targets(
    reader: Reader, steps: tuple[str, ...], targets: tuple[str, ...], known: list[str], what: str
) -> None:
    for target in targets or ():
        if target not in known:
            reader.mistake(steps, f"no {what} '{target}'{suggest(target, known)}")


def _check_url(reader: Reader, url: str, steps: tuple[str | int, ...]) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.scheme in ("http", "https") else parts.netloc or parts.path
        good = bool(parts.scheme and host) and (parts.port is None or parts.port >= 0)
    except ValueError:  # brackets that do not match, a port that is no number or beyond 65535
        good = False
    if not good:
        shown = "the value" if "@" in url else reader.show(url, steps)
        reader.mistake(steps, f"{shown} is not a URL; write it like https://host:8420")
    elif "@" in parts.netloc:
        reader.mistake(steps, "logs show URLs: remove user and password, the key is what counts")


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_loopback(url: str) -> bool:
    """Whether what is sent there stays on this machine. A name that only looks like an address does not count."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        local = parts.scheme in ("loopback", "zmq+ipc", "zmq+inproc")
        return local or host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


__all__ = [
    "AngelConfig", "ChannelConfig", "Component", "DeliveryConfig", "GatewayConfig", "Limits", "MonitorConfig",
    "NodeConfig", "PeerConfig", "ScheduleConfig", "WorkerConfig", "from_mapping", "load", "parse",
]  # fmt: skip
