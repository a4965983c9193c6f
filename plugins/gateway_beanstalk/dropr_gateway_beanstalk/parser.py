"""The bytes of a connection, cut into commands.

Owns `Parser`, which takes bytes in pieces of any size, and its limits. Pure: knows no sockets and nothing of dropr.
"""

import re

from dropr_gateway_beanstalk.commands import (
    BAD_FORMAT,
    EXPECTED_CRLF,
    JOB_TOO_BIG,
    MAX_JOB,
    MAX_LINE,
    MAX_U32,
    Command,
    Put,
    Refused,
    read_line,
)

_PUT = re.compile(rb"put  *([0-9]+) +([0-9]+) +([0-9]+) +([0-9]+)([^\r]*)\r\n")


class Parser:
    """What arrives on one connection, cut into commands.

    It keeps at most one unfinished job (its size is checked before any of it is kept) or one unfinished line.
    """

    def __init__(self, max_job: int = MAX_JOB) -> None:
        self._max_job = max_job
        self._data = bytearray()
        self._put: tuple[int, int, int, int] | None = None  # its body has not arrived as a whole
        self._skip = 0  # bytes of a body that is too big
        self._overlong = False  # within a line that is

    def feed(self, data: bytes) -> list[Command]:
        """The commands that are complete with these bytes."""
        buffer = self._data
        buffer += data
        commands: list[Command] = []
        at = 0
        while (after := self._step(at, commands)) is not None:
            at = after
        del buffer[:at]
        return commands

    def _step(self, at: int, commands: list[Command]) -> int | None:
        """Read one thing from there; where the next begins, or None if more bytes must come first."""
        buffer = self._data
        if self._put is not None:
            return self._body(at, self._put, commands)
        if self._skip:
            return self._skipped(at, commands)
        if self._overlong:
            return self._end_of_line(at, commands)
        found = _PUT.match(buffer, at, at + MAX_LINE)
        if found is not None:
            return self._begin_put(found, commands)
        end = buffer.find(b"\r\n", at, at + MAX_LINE)
        if end >= 0:
            commands.append(read_line(bytes(buffer[at:end])))
            return end + 2
        if len(buffer) - at < MAX_LINE:
            return None
        self._overlong = True
        return at

    def _begin_put(self, found: re.Match[bytes], commands: list[Command]) -> int | None:
        priority, delay, ttr, size = map(int, found.groups()[:4])
        if max(priority, delay, ttr, size) > MAX_U32 or b"\0" in found[5]:
            commands.append(Refused(BAD_FORMAT))
        elif size > self._max_job:
            self._skip = size + 2
        elif found[5]:
            commands.append(Refused(BAD_FORMAT, "put"))
        else:
            self._put = (priority, delay, max(1, ttr), size)
            return self._body(found.end(), self._put, commands, began=True)
        return found.end()

    def _body(
        self, at: int, put: tuple[int, int, int, int], commands: list[Command], *, began: bool = False
    ) -> int | None:
        end = at + put[3]
        if len(self._data) < end + 2:
            return at if began else None
        body = bytes(self._data[at : end + 2])
        self._put = None
        commands.append(Put(*put[:3], body[:-2]) if body.endswith(b"\r\n") else Refused(EXPECTED_CRLF, "put"))
        return end + 2

    def _skipped(self, at: int, commands: list[Command]) -> int | None:
        here = min(self._skip, len(self._data) - at)
        self._skip -= here
        if not self._skip:
            commands.append(Refused(JOB_TOO_BIG, "put"))
        return at + here if here else None

    def _end_of_line(self, at: int, commands: list[Command]) -> int | None:
        end = self._data.find(b"\r\n", at)
        if end >= 0:
            self._overlong = False
            commands.append(Refused(BAD_FORMAT))
            return end + 2
        keep = len(self._data) - self._data.endswith(b"\r")
        return keep if keep > at else None
