"""Which serializer turns which value into bytes, and back.

Owns the choice: the channel's serializer for sending, the content type for reading. Only what the
configuration names is imported, plus the three built-in ones for types that need no choice.
"""

import threading
from typing import TYPE_CHECKING, Any

from dropr_core.config.node import NodeConfig
from dropr_core.config.schema import ChannelConfig
from dropr_core.contracts.context import Context
from dropr_core.contracts.serializer import Serializer
from dropr_core.errors import ProtocolError, UsageError
from dropr_core.model.limits import to_utf8
from dropr_core.model.media_types import MediaType, parse_media_type
from dropr_core.model.message import Message
from dropr_core.plugin.registry import create
from dropr_core.system.loading import unforked

if TYPE_CHECKING:
    from dropr_core.contracts.value_type import ValueType

_BUILT_IN = {"application/octet-stream": "bytes", "text/plain": "text", "application/json": "json"}


class Serialization:
    """All serializers of one node, made when first needed."""

    def __init__(self, config: NodeConfig, context: Context) -> None:
        self._config, self._context = config, context
        self._by_channel: dict[str, Serializer | None] = {}
        self._by_name: dict[str, Serializer] = {}
        self._types: dict[str, ValueType] = {}
        self._making = threading.RLock()
        """Making one takes as long as hundreds of messages: threads that need it at once do not do so each."""

    def dump(self, channel: str, value: Any) -> tuple[Serializer | None, bytes, str]:
        """(serializer, body, content type) of a value sent on a channel.

        Without a serializer in the configuration bytes and text go as they are; anything else is
        refused, because the receiver could not know what it is.
        """
        serializer = self._of_channel(channel)
        if (kind := self._type_of(channel)) is not None:
            try:
                value = kind.plain(value)
            except UsageError as error:
                raise UsageError(f"channel {channel}: {error}") from None
        if serializer is not None:
            return serializer, serializer.dumps(value), serializer.content_type
        if isinstance(value, bytes):
            return None, value, "application/octet-stream"
        if isinstance(value, (bytearray, memoryview)):
            return None, bytes(value), "application/octet-stream"
        if isinstance(value, str):
            return None, to_utf8(value, "the text"), "text/plain; charset=utf-8"
        raise UsageError(
            f"channel {channel}: cannot send a {type(value).__name__} as it is; "
            f"send bytes or text, or give the channel a serializer (channels.{channel}.serializer: json)"
        )

    def type_of_encoded(self, channel: str) -> str:
        """The content type of bytes that are encoded already, where nobody says it: that of its serializer."""
        serializer = self._of_channel(channel)
        return "application/octet-stream" if serializer is None else serializer.content_type

    def load(self, message: Message, body: bytes) -> Any:
        """The value of a body, of the type that its channel has, if it has one. Raises ProtocolError."""
        value = self.load_as(message.content_type, message.channel, body)
        kind = self._type_of(message.channel)
        return value if kind is None else kind.make(value)

    def is_typed(self, channel: str) -> bool:
        """Whether values on a channel must have a type."""
        config = self._config.channels.get(channel)
        return config is not None and config.type is not None

    def _type_of(self, channel: str) -> "ValueType | None":
        found = self._types.get(channel)
        if found is not None or not self.is_typed(channel):
            return found
        with unforked:
            from dropr_core.plugin.types import load_type  # few channels have a type

        target = str(self._config.channels[channel].type)
        made = self._types[channel] = load_type(target, f"channels.{channel}.type")
        return made

    def load_as(self, content_type: str, channel: str, data: bytes) -> Any:
        """The value of bytes with a content type; raises ProtocolError."""
        serializer = self._of_channel(channel)
        if serializer is not None and serializer.content_type == content_type:
            return serializer.loads(data)
        meant = parse_media_type(content_type)
        if meant is not None and (found := self._reader_of(meant, serializer)) is not None:
            return found.loads(data)
        raise ProtocolError(
            f"no serializer for content type {content_type!r}: name one for channel {channel} in the configuration"
        )

    def _reader_of(self, meant: MediaType, own: Serializer | None) -> Serializer | None:
        """Who reads a media type: the channel's own, a built-in one, that of another channel; JSON by its suffix."""
        if own is not None and _reads(own, meant):
            return own
        name = _BUILT_IN.get(meant.name)
        if name is not None and meant.charset is None:
            return self._built_in(name)
        for channel in self._config.channels:
            other = self._of_channel(channel)
            if other is not None and _reads(other, meant):
                return other
        return self._built_in("json") if meant.suffix == "json" and meant.charset is None else None

    def dump_result(self, value: Any) -> tuple[bytes, str]:
        """A handler's result: bytes and text as they are, everything else as JSON."""
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value), "application/octet-stream"
        if isinstance(value, str):
            return to_utf8(value, "the result"), "text/plain; charset=utf-8"
        serializer = self._built_in("json")
        return serializer.dumps(value), serializer.content_type

    def _of_channel(self, channel: str) -> Serializer | None:
        found = self._by_channel.get(channel)
        if found is not None or channel in self._by_channel:
            return found
        config = self._config.channels.get(channel)
        if config is None:
            return None
        with self._making:
            if channel not in self._by_channel:
                self._by_channel[channel] = self._make_for(channel, config)
            return self._by_channel[channel]

    def _make_for(self, channel: str, config: ChannelConfig) -> Serializer | None:
        if config.serializer is None:
            return None if config.type is None else self._built_in("json")
        made: Serializer = create("serializer", config.serializer.use, config.serializer.options, self._context,
                                  where=f"channels.{channel}.serializer", at=self._config.where)  # fmt: skip
        return made

    def _built_in(self, name: str) -> Serializer:
        found = self._by_name.get(name)
        if found is None:
            with self._making:
                found = self._by_name.get(name)
                if found is None:
                    found = self._by_name[name] = create("serializer", name, {}, self._context, where="serializer")
        return found


def _reads(serializer: Serializer, meant: MediaType) -> bool:
    own = parse_media_type(serializer.content_type)
    return own is not None and meant.is_read_as(own)
