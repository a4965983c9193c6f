"""From the arguments of `send` to what the outbox stores.

Owns the rules of `send`: defaults of the channel, routes, limits, ids, the envelope. Pure but for
the id maker and the clock it is given; must not know stores or processes.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import msgspec

from dropr_core.api.body_source import Body, Rejoined, opened, read_up_to
from dropr_core.api.message_template import Composed, MessageTemplate
from dropr_core.api.send_options import (
    MessageRef,
    PutOptions,
    SendOptions,
    as_seconds,
    check_options,
    delay_of,
    names_of,
)
from dropr_core.api.send_rules import aged, check_times, fingerprint, headers_of, priority_of_options
from dropr_core.config.node import NodeConfig
from dropr_core.contracts.bodies import Bodies, Progress, Written
from dropr_core.contracts.serializer import Serializer
from dropr_core.contracts.storage import NewMessage
from dropr_core.errors import TooBig, UnknownPeer, UsageError
from dropr_core.model import envelope
from dropr_core.model.facts import PROPAGATED
from dropr_core.model.limits import MAX_HEADERS
from dropr_core.model.message import Message, check_message
from dropr_core.model.message import check_options as check_facts
from dropr_core.model.names import (
    DEFAULT_CHANNEL,
    DEFAULT_PRIORITY,
    IdMaker,
    MessageId,
    check_channel,
    id_of_key,
    lane_priority,
    parse_id,
)
from dropr_core.system.clock import Clock

_PUT = frozenset(PutOptions.__annotations__)
_SEND = frozenset(SendOptions.__annotations__)


@attrs.frozen
class _Route:
    peers: tuple[str, ...]
    channel: str
    priority: int
    receipt: bool
    delay: float | None
    expires_in: float | None


class Local(NamedTuple):
    """A message for this node's own inbox about which nothing else was said."""

    id: MessageId
    priority: int
    envelope: bytes


RAW = "application/octet-stream"
"""What bytes are that no serializer has made."""


class Composer:
    """Makes messages for one node. Safe from many threads."""

    def __init__(
        self,
        config: NodeConfig,
        clock: Clock,
        serializer: Callable[[str, Any], tuple[Serializer | None, bytes, str]],
        bodies: Callable[[], Bodies],
        propagate: Callable[[str], Mapping[str, str]] | None = None,
    ) -> None:
        """``propagate``: headers that go along with a message on a channel, of a trace for instance."""
        self._config, self._propagate = config, propagate
        self._clock = clock
        self._serialize = serializer
        self._make_id = IdMaker(clock.wall)
        self._max_body = config.limits.max_body
        self._inline = config.limits.inline_body
        self.small = self._inline if self._max_body is None else min(self._inline, self._max_body)
        """Bytes of a body that is never too big, and never a file."""
        self._bodies = bodies
        self._raw: set[str | None] = set()
        """Channels of the configuration on which bytes go as they are."""
        self._fills: dict[tuple[object, str | None], MessageTemplate] = {}
        """(to, channel) → what makes a message of bytes that go as they are."""
        self._routes: dict[tuple[object, str | None], _Route] = {}
        self._templates: dict[tuple[object, str | None, str], MessageTemplate] = {}
        self._locals: dict[tuple[str, str], Callable[[bytes], Local]] = {}
        """(channel, content type) → what makes a message for this node itself."""

    def compose_plain(self, value: Any, to: str | Iterable[str] | None, channel: str | None) -> Composed:
        """`compose` for a message about which nothing else was said; the common case, in a third of the time."""
        if self._propagate is not None:  # each has headers of its own
            return self.compose(value, {"to": to, "channel": channel})
        if type(value) is bytes and len(value) <= self.small:  # as they are, on a way that was taken before
            plain = (to is None or type(to) is str) and type(channel) is str
            template = self._fills.get((to, channel)) if plain else None
            if template is not None:
                return template.make(value)
        if to is not None and not isinstance(to, str):
            to = names_of(to)
        if channel is not None and type(channel) is not str:
            check_channel(channel)
        body, content_type = self._body(value, channel or DEFAULT_CHANNEL, None)
        if not isinstance(body, bytes) or len(body) > self._inline:
            return self.compose(value, {"to": to, "channel": channel})
        return self._template(to, channel, content_type).make(body)

    def template_of(self, value: Any, options: SendOptions) -> MessageTemplate | None:
        """What makes this and other messages of bytes of which the same is said; None: each needs a look of its own.
        Such bytes go as they are, on a channel of the configuration, and are not more than `small`. Raises UsageError.
        """
        to, channel = options.get("to"), options.get("channel")
        if (
            self._propagate is not None or type(value) is not bytes or len(value) > self.small
            or type(channel) is not str or not (to is None or type(to) is str)
        ):  # fmt: skip
            return None
        found = self._fills.get((to, channel))
        if found is None:
            body, content_type = self._body(value, channel, None)
            if body is not value or channel not in self._raw:
                return None
            found = self._template(to, channel, content_type)
        return found if found.plain else None

    def _template(self, to: str | Iterable[str] | None, channel: str | None, content_type: str) -> MessageTemplate:
        """What makes messages on a way, of what they have in common."""
        made = self._templates.get((to, channel, content_type))
        if made is None:
            route = self._route(to, channel)
            message = Message(
                id=b"", sender=self._config.node, channel=route.channel, priority=route.priority,
                content_type=content_type, receipt=route.receipt, delay=route.delay, expires_in=route.expires_in,
            )  # fmt: skip
            like = NewMessage(
                MessageId(b""), route.channel, route.priority, route.peers, b"", route.receipt, route.expires_in,
                bool(route.delay),
            )  # fmt: skip
            envelopes = envelope.EnvelopeTemplate(check_facts(message))
            made = MessageTemplate(like, envelopes, self._clock, self._make_id)
            if len(self._templates) < 10_000:
                self._templates[to, channel, content_type] = made
        if channel in self._raw and content_type == RAW and len(self._fills) < 10_000:
            self._fills[to, channel] = made
        return made

    def compose(self, value: Any, options: SendOptions, progress: Progress | None = None) -> Composed:
        """The message to store, its body written if it is large. Raises UsageError (UnknownPeer, TooBig …),
        StoreError; nothing was stored then.
        """
        check_options(options, _SEND, "send")
        route = self._route(options.get("to"), options.get("channel"))
        body, content_type = self._body(value, route.channel, options.get("content_type"))
        return self._composed(route, options, headers_of(options.get("headers"), value), body, content_type, progress)

    def compose_encoded(self, body: bytes, content_type: str, options: SendOptions, age: float) -> Composed:
        """`compose` of a body that is encoded already, sent ``age`` seconds ago. Raises as it does."""
        check_options(options, _SEND, "send")
        route = self._route(options.get("to"), options.get("channel"))
        self._check_size(body)
        return self._composed(route, options, dict(options.get("headers") or {}), body, content_type, None, age)

    def _composed(
        self, route: _Route, options: SendOptions, headers: dict[str, str], body: Body, content_type: str,
        progress: Progress | None, age: float = 0.0,
    ) -> Composed:  # fmt: skip
        own, identity = self._identity(route.channel, options.get("id"), options.get("dedup_key"))
        receipt, rank, now = options.get("receipt"), options.get("rank"), self._clock.wall()
        delay, life = delay_of(options, now), as_seconds(options.get("expires_in"), "expires_in")
        message = Message(
            id=identity,
            sender=self._config.node,
            channel=route.channel,
            priority=priority_of_options(options, route.priority),
            content_type=content_type,
            headers=headers,
            key=options.get("key"),
            receipt=route.receipt if receipt is None else receipt,
            created_at=now - age,
            delay=route.delay if delay is None else delay,
            expires_in=route.expires_in if life is None else life,
            rank=rank,
        )
        check_times(check_facts(message))
        inline, written = self._inside(identity, body, progress)
        content = inline if written is None else written.reference
        digest = inline if written is None else written.reference.digest
        print_ = fingerprint(message, digest, route.peers, options.get("at")) if own else None
        message = aged(message, age)
        outgoing = NewMessage(
            identity,
            route.channel,
            lane_priority(message.priority, large=written is not None),
            route.peers,
            envelope.encode(self._carrying(message), content),
            message.receipt,
            message.expires_in,
            bool(message.delay),
            print_,
        )
        return Composed(outgoing, written)

    def peers_of(self, to: str | Iterable[str] | None, channel: str | None) -> tuple[str, ...]:
        """Whom a message goes to. Raises UsageError."""
        return self._route(to, channel).peers

    def _carrying(self, message: Message) -> Message:
        """The message with the headers that go along with it, unless the sender gave one of that kind himself."""
        if self._propagate is None or not PROPAGATED.isdisjoint(message.headers):
            return message
        if sum(len(name) + len(value) for name, value in message.headers.items()) > MAX_HEADERS // 2:
            return message  # whose headers were checked already: what goes along shall not make them too large
        return msgspec.structs.replace(message, headers={**message.headers, **self._propagate(message.channel)})

    def _inside(
        self, identity: MessageId, body: Body, progress: Progress | None = None, inbox_of: str | None = None
    ) -> tuple[bytes, Written | None]:
        """The body if it is small enough to stand in its envelope; else it is written to a file of its own."""
        if isinstance(body, bytes) and len(body) <= self._inline:
            return body, None
        with contextlib.ExitStack() as stack:
            source, size = opened(body, stack)
            begin = read_up_to(source, self._inline + 1)
            if len(begin) <= self._inline:
                return begin, None
            whole = Rejoined(begin, source)
            return b"", self._bodies().write(
                identity, whole, limit=self._max_body, progress=progress, size=size, inbox_of=inbox_of
            )

    def _identity(self, channel: str, given: MessageRef | None, dedup_key: str | None) -> tuple[bool, MessageId]:
        """Whether the id is the caller's own, and the id."""
        if given is not None:
            if dedup_key is not None:
                raise UsageError("give id= or dedup_key=, not both")
            return True, parse_id(given)
        if dedup_key is not None:
            if not dedup_key:
                raise UsageError("dedup_key: an empty text would make all such messages the same one")
            return True, id_of_key(self._config.node, channel, dedup_key)
        return False, self._make_id()

    def compose_local_plain(self, value: Any, channel: str) -> Local | None:
        """`compose_local` for a message about which nothing else was said; the common case, in a third of the time.
        None: its body is large or a file, or it gets headers of its own, and `compose_local` does it.
        """
        if self._propagate is not None:
            return None
        body, content_type = value, RAW
        if type(value) is not bytes or len(value) > self.small or type(channel) is not str or channel not in self._raw:
            body, content_type = self._body(value, check_channel(channel), None)
            if not isinstance(body, bytes) or len(body) > self._inline:
                return None
        make = self._locals.get((channel, content_type))
        return (make or self._local_template(channel, content_type))(body)

    def _local_template(self, channel: str, content_type: str) -> Callable[[bytes], Local]:
        """What makes messages of one channel and kind for this node itself, of what they have in common."""
        config = self._config.channels.get(channel)
        priority = config.priority if config else DEFAULT_PRIORITY
        message = Message(
            id=b"", sender=self._config.node, channel=channel, priority=priority, content_type=content_type
        )
        fill = envelope.EnvelopeTemplate(check_facts(message)).fill
        wall, make_id = self._clock.wall, self._make_id

        def compose(body: bytes) -> Local:
            now = wall()
            identity = make_id(now)
            return Local(identity, priority, fill(identity, now, body))

        if len(self._locals) < 10_000:  # names come from the application: bounded all the same
            self._locals[channel, content_type] = compose
        return compose

    @staticmethod
    def check_local(channel: str, options: PutOptions, verb: str) -> None:
        """Raise as `compose_local` for what is wrong whatever the messages are. ``verb``: what was called."""
        check_options(options, _PUT, verb)
        check_channel(channel)

    def compose_local(
        self,
        value: Any,
        channel: str,
        options: PutOptions,
        identity: MessageId | None = None,
        sender: str = "",
        content_type: str | None = None,
    ) -> tuple[Message, bytes, Written | None]:
        """A message for this node's own inbox: its facts, its envelope, and its body if that is large. ``sender``:
        under which name it is put there, if not that of the node; ``content_type``: if not that of its serializer.
        """
        check_options(options, _PUT, "put")
        config = self._config.channels.get(check_channel(channel))
        body, kind = self._body(value, channel, content_type)
        now = self._clock.wall()
        message = Message(
            id=self._make_id() if identity is None else identity,
            sender=self._config.node,
            channel=channel,
            priority=priority_of_options(options, config.priority if config else DEFAULT_PRIORITY),
            content_type=kind,
            headers=headers_of(options.get("headers"), value),
            key=options.get("key"),
            created_at=now,
            delay=delay_of(options, now),
            expires_in=as_seconds(options.get("expires_in"), "expires_in"),
            rank=options.get("rank"),
        )
        check_times(check_message(message))
        inline, written = self._inside(message.message_id, body, inbox_of=sender or self._config.node)
        content = inline if written is None else written.reference
        return message, envelope.encode(self._carrying(message), content), written

    def _body(self, value: Any, channel: str, content_type: str | None) -> tuple[Body, str]:
        body: Body
        if isinstance(value, Path) or (hasattr(value, "read") and not isinstance(value, bytes)):
            typed = self._config.channels.get(channel)
            if typed is not None and typed.type is not None:
                raise UsageError(f"channel {channel}: a file is no {typed.type}; send it on a channel without a type")
            body, own_type = value, RAW
        else:
            serializer, body, own_type = self._serialize(channel, value)
            if serializer is None and body is value and channel in self._config.channels:
                self._raw.add(channel)
            self._check_size(body)
        return body, own_type if content_type is None else content_type

    def _check_size(self, body: bytes) -> None:
        if self._max_body is not None and len(body) > self._max_body:
            raise TooBig(
                f"a body of {len(body)} bytes: the limit is {self._max_body} (limits.max_body); "
                "split it, or raise the limit on both nodes"
            )

    def _route(self, to: str | Iterable[str] | None, channel: str | None) -> _Route:
        hashable = names_of(to)
        if channel is not None and type(channel) is not str:
            check_channel(channel)
        cached = self._routes.get((hashable, channel))
        if cached is not None:
            return cached
        name = check_channel(channel) if channel is not None else DEFAULT_CHANNEL
        config = self._config.channels.get(name)
        targets = hashable if hashable is not None else (config.to if config else None)
        if not targets:
            raise UnknownPeer(
                f"channel {name} has no `to:` in the configuration: add one, or say to=PEER (known: {self._known()})"
            )
        peers: dict[str, None] = {}
        for target in (targets,) if isinstance(targets, str) else targets:
            for peer in self._resolve(target):
                peers[peer] = None
        if config is None:
            route = _Route(tuple(peers), name, DEFAULT_PRIORITY, False, None, None)
        else:
            route = _Route(tuple(peers), name, config.priority, config.receipt, config.delay, config.expires_in)
        if len(self._routes) < 10_000:  # names come from the application: bounded all the same
            self._routes[hashable, channel] = route
        return route

    def _resolve(self, target: str) -> tuple[str, ...]:
        if target in self._config.peers or target in self._config.groups:
            return self._config.resolve(target)
        raise UnknownPeer(f"no peer or group {target!r} in the configuration (known: {self._known()})")

    def _known(self) -> str:
        return ", ".join(sorted([*self._config.peers, *self._config.groups])) or "none"
