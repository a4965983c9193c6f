"""What the processes of dropr say while they run: one line for each event, on the error stream.

Owns the form of a line (``2026-11-21 09:00:01 daemon  message``), how much is said, and two promises:
one event is one line whatever a peer put into it, and no secret that this module was told of appears.
Must not know who logs what, nor read the configuration; another place for the lines is syslog.py.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TextIO

from dropr_core.system.log_fields import fields_of

MASK = "***"
SHORTEST_SECRET = 4
"""Characters. Shorter texts are not masked: they would be found everywhere."""

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t", 0x2028: "\\u2028", 0x2029: "\\u2029",
}  # fmt: skip


def one_line(text: str) -> str:
    """``text`` without anything that moves a cursor, ends a line or talks to a terminal."""
    return text.translate(_CONTROLS)


class Line(logging.Formatter):
    """Turns a record into one line; with ``tracebacks``, the traceback follows, each line marked.

    The traceback of a record that has the attribute ``traceback`` follows in any case: it is about code of the user's.
    So does the text of the attribute ``stack``: where that code is.
    """

    def __init__(self, role: str, *, tracebacks: bool = False, timed: bool = True, node: str = "") -> None:
        super().__init__()
        self.role, self.node = role, node
        self._tracebacks, self._timed = tracebacks, timed
        self._secrets: tuple[str, ...] = ()

    def hide(self, secrets: Iterable[str]) -> None:
        """Mask these texts from now on, the longest first so that none shows through another."""
        known = {*self._secrets, *(secret for secret in secrets if len(secret) >= SHORTEST_SECRET)}
        self._secrets = tuple(sorted(known, key=len, reverse=True))

    def format(self, record: logging.LogRecord) -> str:
        """The finished line or lines, without the last newline."""
        when = time.strftime("%Y-%m-%d %H:%M:%S ", time.localtime(record.created)) if self._timed else ""
        return when + self.untimed(record)

    def untimed(self, record: logging.LogRecord) -> str:
        """The same without the time."""
        try:
            text = record.getMessage()
        except Exception as error:  # a wrong logging call must not cost the event, nor the process
            text = f"{record.msg} [badly logged: {type(error).__name__}]"
        if record.name.partition(".")[0] not in {"dropr", "root"}:
            text = f"{record.name}: {text}"  # code of the user's, or a library
        problem = record.exc_info[1] if record.exc_info else None
        traced = self._tracebacks or getattr(record, "traceback", False)
        if problem is not None and not traced:
            text += f": {type(problem).__name__}: {problem}"
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        line = f"{self.role:<7} {one_line(self.masked(text))}"
        if problem is not None and traced and record.exc_info:
            trace = self.masked(self.formatException(record.exc_info))
            line += "".join(f"\n    | {one_line(part)}" for part in trace.splitlines())
        if stack := getattr(record, "stack", ""):
            line += "".join(f"\n    | {one_line(part)}" for part in self.masked(stack).splitlines())
        return line

    def masked(self, text: str) -> str:
        """``text`` without the secrets that are known."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text


class JsonLine(Line):
    """The same as one JSON object a line: `time` (ISO 8601, UTC), `level`, `node`, `role` (the process: `worker-2`),
    `pid`, `logger`, `message`; what it is about, as far as it is about one: `message_id`, `channel`, `peer`, `lane`,
    `child`, `child_pid`, `caller`; `traceback` and `stack` where there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The finished line, without the newline."""
        try:
            text = record.getMessage()
        except Exception as error:  # a wrong logging call must not cost the event, nor the process
            text = f"{record.msg} [badly logged: {type(error).__name__}]"
        document = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **({"node": self.node} if self.node else {}),
            "role": self.role,
            "pid": record.process,
            "logger": record.name,
            "message": self.masked(text),
            **{
                key: self.masked(value) if isinstance(value, str) else value for key, value in fields_of(record).items()
            },
        }
        if record.exc_info and record.exc_info[1] is not None:
            document["traceback"] = self.masked(self.formatException(record.exc_info))
        if stack := getattr(record, "stack", ""):
            document["stack"] = self.masked(stack)
        return json.dumps(document)


def severity(level: int) -> int:
    """What syslog and the journal call a level of logging: 7 debug, 6 info, 4 warning, 3 error, 2 critical."""
    steps = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
    return next((number for least, number in steps if level >= least), 7)


class ErrorStream(logging.Handler):
    """Writes to what is the error stream at that moment. A stream that is gone or full costs nothing else."""

    def __init__(self, line: Line, stream: TextIO | None = None, *, journal: bool = False) -> None:
        """``journal``: each line begins with its priority (``<4>``), which the system's journal takes off and keeps."""
        super().__init__()
        self.setFormatter(line)
        self.line, self._stream, self._journal = line, stream, journal

    def emit(self, record: logging.LogRecord) -> None:
        """Write one event."""
        stream = self._stream or sys.stderr
        text = self.format(record)
        if self._journal:
            text = "\n".join(f"<{severity(record.levelno)}>{part}" for part in text.splitlines())
        try:
            stream.write(text + "\n")
            stream.flush()
        except (OSError, ValueError):  # closed, full or a broken pipe: work goes on without a log
            return


@contextmanager
def to_error_stream(
    role: str,
    verbosity: int = 0,
    *,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
    form: str = "text",
    own: bool = False,
    node: str = "",
    instead: Callable[[ErrorStream], ErrorStream] | None = None,
) -> Iterator[ErrorStream]:
    """Log to the error stream (or ``stream``) as ``role`` for as long as the block lasts.

    ``verbosity``: below 0 warnings only, 0 what an operator wants to know, 1 and more everything of
    dropr, 2 and more also tracebacks and what the libraries say. What is yielded has ``line.hide()``
    for secrets that are known only later. ``form``: ``text``, or ``json`` for an object a line. ``own``: code of the
    user's runs here, and what it logs from INFO on passes through. ``instead`` makes what takes the lines in place of
    the error stream, which it is given for those that it cannot take.
    """
    kind = JsonLine if form == "json" else Line
    journal = in_journal(os.environ, stream)
    line = kind(role, tracebacks=verbosity >= 2, timed=not journal, node=node)
    line.hide(secrets)
    handler = ErrorStream(line, stream, journal=journal)
    if instead is not None:
        handler = instead(handler)
    root, ours = logging.getLogger(), logging.getLogger("dropr")
    levels = root.level, ours.level
    others = logging.INFO if own and verbosity >= 0 else logging.WARNING
    root.setLevel(logging.DEBUG if verbosity >= 2 else others)
    ours.setLevel(logging.WARNING if verbosity < 0 else logging.INFO if verbosity == 0 else logging.DEBUG)
    root.addHandler(handler)
    try:
        yield handler
    finally:
        root.removeHandler(handler)
        root.setLevel(levels[0])
        ours.setLevel(levels[1])
        handler.close()


def in_journal(environ: Mapping[str, str], stream: TextIO | None = None) -> bool:
    """Whether the stream goes to the system's journal, which writes the time itself."""
    try:
        device, inode = environ.get("JOURNAL_STREAM", "").split(":")
        found = os.fstat((stream or sys.stderr).fileno())
        return (found.st_dev, found.st_ino) == (int(device), int(inode))
    except (OSError, ValueError, AttributeError):
        return False
