"""Bytes as they arrive to whole requests, in whichever protocol the connection speaks.

Owns the buffer and its limits: no line, key or data block grows beyond them, whatever is announced. Owns which protocol
it is (the first byte says so), and that nothing is done before a login where one is wanted. Does no I/O.
"""

from collections.abc import Iterator

from dropr_gateway_memcache import binary, meta, text
from dropr_gateway_memcache.meaning import LOGIN_FIRST
from dropr_gateway_memcache.requests import MAX_KEY, Request, Say, Take

MAX_LINE = 65_536
"""Bytes of a command line: a get of some hundred keys."""
_REMEMBERED, _WORTH_IT = 64, 300
"""Lines of which is remembered what they mean, and bytes of one: a client says the same few again and again."""
_BEFORE_LOGIN = (b"version", b"mn")


class Reader:
    """One connection's requests. After a request that hangs up, what follows is ignored."""

    def __init__(self, *, max_item: int, version: str, locked: bool = False) -> None:
        self.locked = locked
        """Whether nothing but a login is let through; the session opens it."""
        self._max_item, self._version = max_item, version
        self._buffer = bytearray()
        self._binary: bool | None = None
        self._block: text.Block | None = None
        self._lines: dict[bytes, text.Block | Take] = {}
        self._skip = 0
        self._ended = False

    @property
    def most_ahead(self) -> int:
        """So much may be read while a get waits; the rest waits in the socket."""
        return MAX_LINE

    @property
    def waiting(self) -> int:
        """Bytes that are kept for a request which is not whole."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Request]:
        """Take what arrived; gives the requests that are whole now, one by one: a login is judged before the next."""
        self._buffer += data
        while not self._ended:
            if self._skip and not self._skipped():
                return
            if not self._buffer:
                return
            if self._binary is None:
                self._binary = self._buffer[0] == binary.REQUEST
            found = self._packet() if self._binary else self._text()
            if found is None:
                return
            if isinstance(found, Say) and found.hang_up:
                self._ended = True
            yield found
        self._buffer.clear()

    def _skipped(self) -> bool:
        """Drop what is left of something too large; whether it is over."""
        gone = min(self._skip, len(self._buffer))
        del self._buffer[:gone]
        self._skip -= gone
        return self._skip == 0

    def _text(self) -> Request | None:
        while True:
            if self._block is not None:
                return self._body(self._block)
            end = self._buffer.find(b"\n", 0, MAX_LINE)
            if end < 0:
                return Say(text.LINE_TOO_LONG, hang_up=True) if len(self._buffer) >= MAX_LINE else None
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            if not line or line.isspace():
                return Say(text.UNKNOWN)
            found = self._lines.get(line) or self._parsed(line)
            if isinstance(found, text.Block):
                if found.size > self._max_item:
                    self._skip = found.size + 2
                    return Say(b"" if found.answers.done() == b"" else text.TOO_LARGE)
                self._block = found
                continue
            if self.locked and not (isinstance(found, Say) and (found.hang_up or line.split()[0] in _BEFORE_LOGIN)):
                return Say(text.TEXT.refused("client", LOGIN_FIRST))
            return found

    def _parsed(self, line: bytes) -> Request | text.Block:
        words = line.split()
        if words[0] in meta.COMMANDS:
            return meta.parse(words)
        found = text.parse(words, self._version)
        if isinstance(found, text.Block | Take) and len(line) <= _WORTH_IT:
            if len(self._lines) >= _REMEMBERED:
                self._lines.clear()
            self._lines[line] = found
        return found

    def _body(self, block: text.Block) -> Request | None:
        if len(self._buffer) < block.size + 2:
            return None
        body, end = bytes(self._buffer[: block.size]), bytes(self._buffer[block.size : block.size + 2])
        self._block = None
        del self._buffer[: block.size + 2]  # also if it is wrong, as in memcached
        if end != b"\r\n":
            return Say(text.BAD_CHUNK)
        if self.locked:
            if block.plain and block.refusal is None:
                return text.login_of(block, body)
            return Say(text.TEXT.refused("client", LOGIN_FIRST))
        return block.whole(body)

    def _packet(self) -> Request | None:
        if len(self._buffer) < binary.HEADER.size:
            return None
        head = binary.head_of(bytes(self._buffer[: binary.HEADER.size]))
        if head is None:
            return Say(b"", hang_up=True)
        if head.body > self._max_item + MAX_KEY + 255:
            self._skip = binary.HEADER.size + head.body
            return Say(binary.too_large(head))
        end = binary.HEADER.size + head.body
        if len(self._buffer) < end:
            return None
        packet = bytes(self._buffer[binary.HEADER.size : end])
        del self._buffer[:end]
        if self.locked and head.opcode not in binary.BEFORE_LOGIN:
            return Say(binary.login_first(head))
        return binary.parse(head, packet, self._version)


__all__ = ["MAX_LINE", "Reader"]
