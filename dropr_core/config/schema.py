"""The sections of a node's configuration as frozen classes: what may stand in the file.

Owns names, types, defaults and the sentence that explains each option; the reference, the JSON
Schema and the template are made from here. Must not read files; what refers to what is `node.py`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import attrs

from dropr_core.config.options import BAD, Note, Reader, duration, fields_of, given, option, own, secret, size
from dropr_core.config.retries import RETRY_SCHEMA, RetryRule, read_retry
from dropr_core.config.yamlfile import Steps
from dropr_core.model.limits import MAX_BATCH_BYTES, MAX_BATCH_COUNT, MAX_INLINE
from dropr_core.model.names import check_channel, check_name, check_pattern
from dropr_core.system.loading import unforked
from dropr_core.system.syslog_address import parse_syslog_address

MIN_KEY = 16
"""Characters of the shortest key: shorter ones can be guessed."""

MONITOR_SCHEMES = ("http", "https", "unix")

NOTHING: Mapping[str, Any] = MappingProxyType({})


@attrs.frozen
class Component:
    """A plugin and its options: ``sqlite``, or ``{use: sqlite, flush: 20ms}``."""

    use: str
    options: Mapping[str, Any] = attrs.field(default=NOTHING, repr=False)
    """As in the file, references followed; not shown, for only the plugin knows what of it is secret."""


def read_component(reader: Reader, value: Any, steps: Steps, *, short: str = "") -> Any:
    """A Component; with ``short``, ``name:rest`` puts the rest into the option of that name."""
    if isinstance(value, str):
        name, colon, rest = value.partition(":") if short else (value, "", "")
        options = {short: rest} if colon else {}
    elif isinstance(value, Mapping):
        if "use" not in value:
            return reader.mistake(steps, "has no 'use'; name the plugin, such as {use: NAME, option: value}")
        name, options = value["use"], {key: item for key, item in value.items() if key != "use"}
    else:
        shown = reader.show(value, steps)
        return reader.mistake(steps, f"expected the name of a plugin or a mapping with 'use', found {shown}")
    if reader.text(name, steps, Note(check=lambda text: check_name(text, "plugin"))) is BAD:
        return BAD
    return Component(name, MappingProxyType(options))


def read_handler(reader: Reader, value: Any, steps: Steps) -> Any:
    """``python:shop.returns:on_return`` is the plugin ``python`` with that target."""
    return read_component(reader, value, steps, short="target")


def read_components(reader: Reader, value: Any, steps: Steps) -> Any:
    """A list of components."""
    items = value if isinstance(value, list) else [] if value is None else [value]
    made = [read_component(reader, item, (*steps, index)) for index, item in enumerate(items)]
    return BAD if any(item is BAD for item in made) else tuple(made)


def read_keys(reader: Reader, value: Any, steps: Steps) -> Any:
    """One key, or two during a rotation; the first signs, both are believed."""
    items = value if isinstance(value, list) else [value]
    if not 1 <= len(items) <= 2:
        return reader.mistake(steps, "one key, or two while keys are rotated: [new, old]")
    if not all(isinstance(item, str) and len(item) >= MIN_KEY for item in items):
        return reader.mistake(steps, f"a key is text of at least {MIN_KEY} characters; `dropr keygen` makes one")
    return tuple(item.encode() for item in items)


def read_gateways(reader: Reader, value: Any, steps: Steps) -> Any:
    """Name → GatewayConfig: the host's words are read here, the rest is left to the plugin."""
    if not isinstance(value, Mapping):
        return reader.mistake(steps, f"expected a mapping of gateways by name, found {reader.show(value, steps)}")
    words, made = fields_of(GatewayConfig), {}
    for name, item in value.items():
        below = (*steps, name)
        if reader.text(name, below, Note(check=lambda text: check_name(text, "gateway"))) is BAD:
            continue
        if item is not None and not isinstance(item, Mapping):
            reader.mistake(below, f"expected a mapping such as {{listen: URL}}, found {reader.show(item, below)}")
            continue
        own_words = {key: one for key, one in (item or {}).items() if key in words}
        options = {key: one for key, one in (item or {}).items() if key not in words}
        config = reader.read(GatewayConfig, own_words, below, name=name, options=MappingProxyType(options))
        if config is not None:
            made[name] = config
    return MappingProxyType(made)


_COMPONENT: Mapping[str, Any] = {
    "oneOf": [{"type": "string"}, {"type": "object", "required": ["use"], "properties": {"use": {"type": "string"}}}]
}
_KEYS: Mapping[str, Any] = {
    "oneOf": [
        {"type": "string", "minLength": MIN_KEY},
        {"type": "array", "items": {"type": "string", "minLength": MIN_KEY}, "minItems": 1, "maxItems": 2},
    ]
}


def component(default: Any, doc: str) -> Any:
    """Declare an option that names a plugin."""
    return own(read_component, "plugin", _COMPONENT, default=default, doc=doc)


def _check_target(text: str) -> None:
    with unforked:
        from dropr_core.config.targets import check_target  # few files have one, and every start pays for imports
    check_target(text)


def _check_rate(text: str) -> None:
    with unforked:
        from dropr_core.model.rates import parse_rate  # the same
    parse_rate(text)


def _limit(what: str) -> Any:
    return option(None, least=1, doc=f"Most messages that may wait {what}; above it `send` raises QueueFull.")


def _room(what: str) -> Any:
    more = "large bodies are files, and `min_free` bounds them"
    return size(None, least=1, doc=f"Most bytes that may wait {what}; {more}.")


@attrs.frozen(kw_only=True)
class PeerConfig:
    """Another node."""

    name: str = given()
    url: str | None = option(None, doc="Where it listens. The scheme picks the transport.", unset="it is never called")
    mode: Literal["push", "pull"] = option(
        "push", doc="`pull`: it cannot be reached from here, or shall not be; it fetches its mail from this node."
    )
    keys: tuple[bytes, ...] = own(
        read_keys, "text, or a list of two", _KEYS, default=(), name="key", secret=True,
        doc="The secret that both nodes share, at least 16 characters; two during a rotation, the new one first.",
    )  # fmt: skip
    may_write: tuple[str, ...] | None = option(
        None,
        doc="Channels it may write to here; `*` and `?` are wild cards.",
        unset="all channels",
        check=check_pattern,
    )
    fetch: bool | None = option(
        None, doc="Whether this node fetches its mail from there.", unset="yes if this node listens nowhere"
    )
    max_messages: int | None = _limit("for this peer")
    max_bytes: int | None = _room("for this peer")


@attrs.frozen(kw_only=True)
class ChannelConfig:
    """A channel, for sending, receiving, or both."""

    name: str = given()
    to: tuple[str, ...] = option((), doc="Peers and groups that get what is sent on it without an address.")
    serializer: Component | None = component(None, "Turns values into bytes and back.")
    type: str | None = option(
        None,
        doc="What values on it must be: `package.module:Class`, of attrs, dataclasses, msgspec or pydantic. `send` "
        "refuses others; who receives gets one of it. Without a serializer: json.",
        unset="anything that the serializer takes",
        check=_check_target,
    )
    priority: int = option(5, least=0, most=9, doc="0 (first) to 9 (last), where `send` does not say.")
    durability: Literal["commit", "interval"] = option(
        "commit",
        doc="When `send` returns: `commit`: the message is on stable storage. `interval`: it survives the death of the "
        "process, and a power cut some milliseconds later.",
    )
    receipt: bool = option(False, doc="Whether the sender wants to know that it was processed.")
    expires_in: float | None = duration(None, doc="After that long no consumer gets it.", unset="it never expires")
    delay: float | None = duration(None, doc="Before that long no consumer gets it.", unset="at once")
    handler: Component | None = own(
        read_handler, "plugin", _COMPONENT, default=None, doc="What `dropr worker` calls for each message."
    )
    timeout: float | None = duration(
        None,
        least=0.001,
        doc="How long the handler may take for one message. One that takes longer has failed.",
        unset="no limit; after a minute the log says where it is",
    )
    attempts: int = option(10, least=1, doc="How many leases a message gets before it is buried.")
    retry_backoff_min: float = duration("1s", doc="Rest after the first failed attempt; doubles each time.")
    retry_backoff_max: float = duration("10m", doc="The longest rest between attempts.")
    retry: Mapping[str, RetryRule] = own(
        read_retry, "rules by exception", RETRY_SCHEMA, default=dict,
        doc="Exceptions by name, and what becomes of the message: `bury`, or `{attempts, backoff_min, backoff_max}`.",
    )  # fmt: skip
    retention: float = duration(0, doc="How long finished messages stay listed and readable, here and at the sender.")
    prefetch: int | None = option(
        None,
        least=1,
        doc="How many messages a consumer holds at most ahead of its loop or handler; 1: none.",
        unset="what is worth it: as many as are handled within 10 ms",
    )
    rate: str | None = option(
        None, check=_check_rate, unset="no limit",
        doc="How many messages all its consumers here get together, evenly: `10/s`, `100/m`, `5000/h`, `20/d`.",
    )  # fmt: skip
    burst: int | None = option(None, least=1, most=1_000_000, unset="1", doc="With a `rate`: so many come at once.")
    concurrency: int | None = option(
        None, least=1, most=1000, unset="no limit", doc="How many messages all its consumers here have in hand at once."
    )
    max_messages: int | None = _limit("in this channel")
    max_bytes: int | None = _room("in this channel")


@attrs.frozen(kw_only=True)
class TopicConfig:
    """A topic of this node: each message that is published on it is copied for each of its subscriptions."""

    name: str = given()
    join: tuple[str, ...] = option((), doc="Peers that may subscribe from their side; `*` and `?` are wild cards.")


@attrs.frozen(kw_only=True)
class GatewayConfig:
    """A door for programs that speak a foreign dialect. What else stands here are the plugin's own options."""

    name: str = given()
    use: str | None = option(
        None, doc="The plugin.", unset="the plugin of this name", check=lambda text: check_name(text, "plugin")
    )
    listen: tuple[str, ...] = option(
        (),
        doc="URLs: `tcp://`, `tls://HOST:PORT?cert=FILE&key=FILE`, `unix:///PATH`, `http://` for one of the web.",
        unset="the dialect's usual port on loopback",
    )
    insecure: bool = option(
        False,
        doc="Listen beyond loopback though callers need not prove who they are: anybody can take and put messages.",
    )
    max_connections: int = option(1000, least=1, most=1_000_000, doc="Connections at once; more are closed at once.")
    max_bytes: int = size(
        "64MiB",
        least=65536,
        doc="Most bytes that its connections have on their way into the store, and that slow readers leave lying.",
    )
    options: Mapping[str, Any] = given(NOTHING, repr=False)
    """As in the file, references followed; only the plugin knows what of it is secret."""

    @property
    def plugin(self) -> str:
        """The name of the plugin."""
        return self.use or self.name


GATEWAYS_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": {
        "type": ["object", "null"],
        "properties": {
            "use": {"type": "string"},
            "listen": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
            "insecure": {"type": "boolean"},
            "max_connections": {"type": "integer", "minimum": 1},
        },
    },
}


@attrs.frozen(kw_only=True)
class Limits:
    """Limits of this node."""

    max_body: int | None = size(None, least=1, doc="The largest body that is sent or taken.", unset="no limit")
    inline_body: int = size(
        "64KiB",
        least=1024,
        most=MAX_INLINE,
        doc="Larger bodies are files beside the store and travel beside the other messages.",
    )
    max_messages: int | None = _limit("in each half of the store")
    max_bytes: int | None = _room("in each half of the store")
    min_free: int | None = size(None, doc="Free disk space that is left alone.", unset="the larger of 1 GiB and 2 %")
    batch_bytes: int = size("4MiB", least=1024, most=MAX_BATCH_BYTES, doc="Most bytes of messages in one request.")
    batch_count: int = option(10_000, least=1, most=MAX_BATCH_COUNT, doc="Most messages in one request.")


@attrs.frozen(kw_only=True)
class DeliveryConfig:
    """How messages are carried."""

    life: float = duration("5d", least=1, doc="What was not delivered, or not processed, for so long is dead.")
    backoff_min: float = duration("1s", least=0.01, doc="Rest of a peer after its first failure; doubles each time.")
    backoff_max: float = duration("60s", least=0.01, doc="The longest rest of a peer.")
    on_peer_reset: Literal["resend", "hold"] = option(
        "resend", doc="When a peer lost messages that it had: send again what is still kept, or hold the peer."
    )
    idle_timeout: float = duration("30s", least=0.1, doc="A request without a byte either way for so long is given up.")
    remember: float = duration("30d", doc="How long ended messages (dead, failed, own ids, receipts) stay known.")


@attrs.frozen(kw_only=True)
class WorkerConfig:
    """How `dropr worker` works."""

    processes: int = option(1, least=1, most=1000, doc="Worker processes; several use several cores.")
    threads: int = option(1, least=1, most=1000, doc="Messages that functions handle at once in one process.")
    tasks: int = option(
        100,
        least=1,
        most=100_000,
        doc="Messages that `async` functions handle at once in one process, on its event loop.",
    )
    concurrency: int | None = option(
        None,
        least=1,
        most=1000,
        doc="The name of `threads` before there were processes and tasks.",
        unset="see `threads`",
    )
    drain: float = duration("25s", doc="On stop, what is being handled may take so long to end.")


@attrs.frozen(kw_only=True)
class LogsConfig:
    """What the processes of this node say. `--log`, `-v` and `-q` of the command line count for more."""

    form: Literal["text", "json", "syslog"] = option(
        "text",
        doc="Lines for people, or JSON objects, on the error stream; or syslog. `--log` and $DROPR_LOG count for more.",
    )
    level: Literal["debug", "info", "warning"] = option("info", doc="What is said; each `-v` more, each `-q` less.")
    syslog: str = option(
        "/dev/log",
        doc="Where syslog listens: a socket of this machine, `udp://HOST:514` or `tcp://HOST:601` (RFC 5424).",
        check=parse_syslog_address,
    )
    facility: Literal[
        "daemon", "user", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"
    ] = option("daemon", doc="What syslog sorts by.")


@attrs.frozen(kw_only=True)
class AngelConfig:
    """How `dropr up` watches."""

    hang: float = duration("60s", least=1, doc="A child that shows no progress for so long is killed and restarted.")
    drain: float = duration("25s", doc="On stop, children may take so long to end.")
    backoff_min: float = duration("100ms", least=0.01, doc="Rest before a crashed child's first restart; doubles.")
    backoff_max: float = duration("30s", least=0.01, doc="The longest rest before a restart.")
    healthy: float = duration("60s", doc="After so long without a crash the rests begin anew.")
    max_memory: int | None = size(None, least=1, doc="A child above it starts afresh.", unset="no limit")
    recycle_after: int | None = option(None, least=1, doc="Messages before a fresh start.", unset="never")


@attrs.frozen(kw_only=True)
class MonitorConfig:
    """The page that shows how this node does, and what other programs read of it: off unless it listens somewhere."""

    listen: tuple[str, ...] = option(
        (),
        doc="URLs: `http://127.0.0.1:8429`, `https://HOST:PORT?cert=FILE&key=FILE`, `unix:///PATH`.",
        unset="there is no page",
    )
    token: str | None = secret(
        None,
        doc="Whoever shows it may look and act, at least 16 characters.",
        unset="made by the node, in the file `monitor.token` of its data directory",
    )
    hosts: tuple[str, ...] = option(
        (), doc="Names by which browsers reach it, besides those in `listen`, this machine's own and numbers."
    )
    insecure: bool = option(
        False, doc="Listen beyond loopback without TLS: others on the way can read the token, and use it."
    )


__all__ = [
    "GATEWAYS_SCHEMA",
    "MONITOR_SCHEMES",
    "AngelConfig",
    "ChannelConfig",
    "Component",
    "DeliveryConfig",
    "GatewayConfig",
    "Limits",
    "LogsConfig",
    "MonitorConfig",
    "PeerConfig",
    "WorkerConfig",
    "check_channel",
    "check_name",
    "component",
    "read_component",
    "read_components",
    "read_gateways",
    "secret",
]  # fmt: skip
