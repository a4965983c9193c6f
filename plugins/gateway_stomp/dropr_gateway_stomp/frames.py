"""Frames of STOMP 1.0, 1.1 and 1.2: from bytes, to bytes.

Owns the syntax of the three versions and the limits that hold before anything is parsed. Knows no command's meaning,
no socket and no dropr. https://stomp.github.io/stomp-specification-1.2.html, section "STOMP Frames".
"""

import enum
import re
from collections.abc import Iterable, Mapping

import attrs


class Version(enum.StrEnum):
    """A version of the protocol."""

    V10 = "1.0"
    V11 = "1.1"
    V12 = "1.2"


class ProtocolError(Exception):
    """What the client sent is no STOMP, or not what may come now. ``str`` is for the client's ERROR frame."""

    def __init__(self, text: str, receipt: str | None = None) -> None:
        super().__init__(text)
        self.receipt = receipt
        """What the refused frame asked a receipt for, if it got so far."""


@attrs.frozen
class Limits:
    """What one frame may have, in bytes or lines."""

    line: int = 10 * 1024
    """One header line, or the command."""
    lines: int = 1000
    """Header lines."""
    headers: int = 64 * 1024
    """All header lines together."""
    body: int = 64 * 1024 * 1024


@attrs.frozen
class Frame:
    """One frame. Of a header that was repeated the first value counts, as the specification says."""

    command: str
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""


class Beat(enum.Enum):
    """An end of line between two frames."""

    BEAT = enum.auto()


UNESCAPED = frozenset({"CONNECT", "STOMP", "CONNECTED"})
"""Their headers are never escaped: their peer may speak 1.0."""

_UNESCAPE = {
    Version.V11: {"\\n": "\n", "\\c": ":", "\\\\": "\\"},
    Version.V12: {"\\n": "\n", "\\c": ":", "\\\\": "\\", "\\r": "\r"},
}
_ESCAPED = re.compile(r"\\.?", re.DOTALL)
_TO_ESCAPE = {
    Version.V11: str.maketrans({"\\": "\\\\", "\n": "\\n", ":": "\\c"}),
    Version.V12: str.maketrans({"\\": "\\\\", "\n": "\\n", ":": "\\c", "\r": "\\r"}),
}
_LINE_ENDS = str.maketrans({"\n": " ", "\0": " "})
_NUMBER = re.compile(r"[0-9]{1,18}")


def unescape(text: str, version: Version) -> str:
    """The text meant by an escaped header name or value. Raises ProtocolError for an escape that does not exist."""
    if "\\" not in text or version is Version.V10:
        return text
    known = _UNESCAPE[version]
    try:
        return _ESCAPED.sub(lambda found: known[found[0]], text)
    except KeyError as error:
        raise ProtocolError(f"{error.args[0]!r} is no escape of STOMP {version} (header {text[:80]!r})") from None


def escape(text: str, version: Version, *, name: bool = False) -> str:
    """The text as it stands on a header line. STOMP 1.0 has no escapes: what cannot stand there becomes a space, and a
    colon in a name an underscore.
    """
    if version is Version.V10:
        return (text.replace(":", "_") if name else text).translate(_LINE_ENDS)
    return text.translate(_TO_ESCAPE[version]).replace("\0", " ")


def encode(
    command: str, headers: Iterable[tuple[str, str]], body: bytes = b"", version: Version = Version.V12
) -> bytes:
    """The bytes of a frame. ``content-length`` is the caller's to add, where he wants one."""
    lines = [command]
    if command in UNESCAPED:
        lines += [f"{name}:{value}" for name, value in headers]
    else:
        lines += [f"{escape(name, version, name=True)}:{escape(value, version)}" for name, value in headers]
    return b"".join(("\n".join(lines).encode("utf-8", "replace"), b"\n\n", body, b"\0"))


class FrameReader:
    """Cuts a stream of bytes into frames, one at a time: the version may change with the first one.

    Holds at most one frame's limits and what was fed last; looks at no byte twice, however small the pieces are.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.version: Version | None = None
        """None until it is negotiated: then what any version allows is taken."""
        self._limits = limits or Limits()
        self._buffer = bytearray()
        self._seen = 0  # up to here no end was found
        self._command = ""
        self._headers: dict[str, str] = {}
        self._lines = self._size = 0
        self._length: int | None = None
        self._in_body = False

    @property
    def waiting(self) -> int:
        """Bytes fed and not yet part of a frame that was given out."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """More of the stream; take out all frames before the next call."""
        self._buffer += data

    def next(self) -> Frame | Beat | None:
        """The next frame, or a beat, or None: more bytes are needed. Raises ProtocolError, and is of no use then."""
        while not self._in_body:
            line = self._line()
            if line is None:
                return None
            if not self._command:
                if not line:
                    return Beat.BEAT
                self._command = self._text(line)
            elif line:
                self._header(line)
            else:
                self._in_body = True
                self._length = self._content_length()
        return self._body()

    def _line(self) -> bytes | None:
        buffer, most = self._buffer, self._limits.line
        end = buffer.find(b"\n", self._seen, most + 2)
        if end < 0:
            self._seen = len(buffer)
            if len(buffer) > most + 1:
                raise ProtocolError(f"a header line may have {most:,} bytes; this one is longer")
            if not self._command and buffer.find(b"\0", 0, most) >= 0:
                raise ProtocolError("a NUL where a command should begin")
            return None
        line = bytes(buffer[:end])
        del buffer[: end + 1]
        self._seen = 0
        self._size += end + 1
        if self.version is not Version.V11 and line.endswith(b"\r"):  # 1.1 alone has it as a part of the value
            line = line[:-1]
        return b"" if line == b"\r" and not self._command else line

    def _text(self, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError:
            raise ProtocolError(f"a header line must be UTF-8: {line[:80]!r}") from None

    def _header(self, line: bytes) -> None:
        self._lines += 1
        if self._lines > self._limits.lines:
            raise ProtocolError(f"a frame may have {self._limits.lines:,} header lines; this one has more")
        if self._size > self._limits.headers:
            raise ProtocolError(f"headers may have {self._limits.headers:,} bytes together; these have more")
        name, colon, value = self._text(line).partition(":")
        version = self.version
        if version in {None, Version.V10}:
            name, value = name.strip(), value.strip()  # "login: me" is what 1.0's own text shows
        elif self._command not in UNESCAPED:
            assert version is not None
            name, value = unescape(name, version), unescape(value, version)
        if not colon or not name:
            raise ProtocolError(f"a header line is NAME:VALUE, which {line[:80]!r} is not")
        self._headers.setdefault(name, value)

    def _content_length(self) -> int | None:
        text = self._headers.get("content-length")
        if text is None:
            return None
        if not _NUMBER.fullmatch(text.strip()):
            raise ProtocolError(f"content-length must be a number of bytes, not {text[:80]!r}", self._receipt)
        if int(text) > self._limits.body:
            raise ProtocolError(self._too_large(f"{int(text):,}"), self._receipt)
        return int(text)

    @property
    def _receipt(self) -> str | None:
        return self._headers.get("receipt")

    def _too_large(self, size: str) -> str:
        return f"a body may have {self._limits.body:,} bytes here (option 'max_body'); this one has {size}"

    def _body(self) -> Frame | None:
        buffer, end = self._buffer, self._length
        if end is None:
            end = buffer.find(b"\0", self._seen)
            if end < 0:
                self._seen = len(buffer)
                if len(buffer) > self._limits.body:
                    raise ProtocolError(self._too_large("more"), self._receipt)
                return None
            if end > self._limits.body:
                raise ProtocolError(self._too_large(f"{end:,}"), self._receipt)
        elif len(buffer) <= end:
            return None
        elif buffer[end]:
            text = f"content-length says {end:,}, and no NUL stands after so many bytes"
            raise ProtocolError(text, self._receipt)
        frame = Frame(self._command, self._headers, bytes(buffer[:end]))
        del buffer[: end + 1]
        self._command, self._headers, self._length, self._in_body = "", {}, None, False
        self._seen = self._lines = self._size = 0
        return frame
