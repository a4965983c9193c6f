"""The lease sheet of a consumer as a file: docs/formats/lease-sheets.md.

Owns its bytes: how they are laid out, written by the consumer and read by whoever finds it dead. A mark is one byte,
stored into a mapping that the process shares with the kernel: no system call, and the death of the process at the next
moment changes nothing. Must not know who is dead, nor what becomes of a lease.
"""

import contextlib
import mmap
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dropr_core.contracts.inbox_records import Ack, Claim
from dropr_core.contracts.lease_sheets import BEGUN, HELD, NOTHING_LEFT, Left, Mark, Noted
from dropr_core.errors import Closed
from dropr_core.system.locks import release_in_child
from dropr_core.system.ownership import open_private

MAGIC, VERSION = b"dropr-ls", 1
LINES = 512
HEAD_AT, MARKS_AT, LINES_AT = 512, 1024, 2048
HEAD = struct.Struct("<8sHHI36sI")
"""magic, version, number of lines, size of the file, boot id, CRC-32 of what stands before it."""
CLAIMING_AT = HEAD_AT + HEAD.size
CLAIMING = 0x33
LEASE = struct.Struct("<QdB27s")
"""Number of the message, seconds for which it is kept when it is done, length of the token, token."""
LINE = struct.Struct(f"<I{LEASE.size}sIII")
"""CRC-32 of the lease, the lease; offset, length and CRC-32 of a note, all zero where there is none."""
LINE_SIZE = LINE.size
NOTE_AT = 4 + LEASE.size
NOTE = struct.Struct("<III")
NOTES_AT = LINES_AT + LINES * LINE_SIZE
SIZE = 65536
MAX_TOKEN = 27
MAX_NOTE = 4096
"""Bytes of what one line may say besides: result, its type, a reason."""

_FREE, _HELD, _BEGUN, _DONE = map(int, Mark)
_Note = tuple[bytes | None, str, str]
_encode_note = msgspec.msgpack.Encoder().encode
_decode_note = msgspec.msgpack.Decoder(_Note).decode
_pack_lease, _pack_line = LEASE.pack, LINE.pack_into


class MappedSheet:
    """The sheet of a consumer of this process; see `contracts.lease_sheets.LeaseSheet`."""

    def __init__(self, path: Path, boot: str) -> None:
        """Allocate the file, which exists and is locked by its consumer, to its full size, and map it.

        A page that a full disk could not give would end the process. Raises OSError; the file is as it was then.
        """
        self._path = path
        # Not the descriptor that holds the lock: a mapping keeps what it was made of open, also in a forked child.
        fd = open_private(path, os.O_RDWR)
        try:
            before = os.fstat(fd).st_size
            try:
                os.posix_fallocate(fd, 0, SIZE)
                view = memoryview(mmap.mmap(fd, SIZE))
            except (OSError, ValueError):
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, before)
                raise
        finally:
            os.close(fd)
        head = HEAD.pack(MAGIC, VERSION, LINES, SIZE, boot.encode()[:36], 0)[:-4]
        view[HEAD_AT:CLAIMING_AT] = head + struct.pack("<I", zlib.crc32(head))
        self._bytes: Any = view
        self._marks: Any = view[MARKS_AT : MARKS_AT + LINES]
        self._free = list(range(LINES - 1, -1, -1))
        self._next_note = NOTES_AT
        self._noted: set[int] = set()
        """Lines that have a note; with the last of them the room for notes is free again."""
        release_in_child(self)

    @property
    def room(self) -> int:
        """How many more lines it has."""
        return len(self._free)

    def claiming(self, *, begins: bool) -> None:
        """A claim is about to be made; or its messages stand on the sheet now."""
        self._bytes[CLAIMING_AT] = CLAIMING if begins else 0

    def hold(self, claims: Sequence[Claim], keep: Mapping[str, float]) -> list[int]:
        """Note claims, of which there is `room`, as held. Raises ValueError for a token that is too long."""
        lines = self._free[: -len(claims) - 1 : -1] if claims else []
        if len(lines) < len(claims):
            raise ValueError(f"{len(claims)} claims, room for {len(lines)}")
        data, marks = self._bytes, self._marks
        for line, (token, number, _, channel, *_) in zip(lines, claims, strict=True):
            marks[line] = _FREE
            write_line(data, LINES_AT + line * LINE_SIZE, token, number, keep[channel])
            marks[line] = _HELD
        del self._free[len(self._free) - len(lines) :]
        return lines

    def begin(self, line: int) -> None:
        """It is handed out."""
        self._marks[line] = _BEGUN

    def withdraw(self, line: int) -> None:
        """What was begun ends with this process, and counts as not begun."""
        if self._marks[line] == _BEGUN:
            self._marks[line] = _HELD

    def done(self, line: int) -> None:
        """It was handled."""
        self._marks[line] = _DONE

    def done_with(self, line: int, ack: Ack) -> bool:
        """It was handled, and this is what is to be said. False: there is no room for it, and nothing was noted."""
        data, at = self._bytes, LINES_AT + line * LINE_SIZE
        note = _encode_note((ack.result, ack.content_type, ack.reason))
        where = self._next_note
        if len(note) > MAX_NOTE or where + len(note) > SIZE:
            return False
        data[where : where + len(note)] = note
        data[at + NOTE_AT : at + LINE_SIZE] = NOTE.pack(where, len(note), zlib.crc32(note))
        self._marks[line] = _DONE
        self._next_note = where + len(note)
        self._noted.add(line)
        return True

    def free(self, lines: Sequence[int]) -> None:
        """What stood on these lines is settled."""
        marks = self._marks
        for line in lines:
            marks[line] = _FREE
        self._free += lines
        if self._noted:
            self._noted.difference_update(lines)
            if not self._noted:
                self._next_note = NOTES_AT

    def release(self) -> None:
        """Let go of it: who still writes gets Closed. Also in a forked child, where it is the parent's. Safe twice."""
        self._bytes = self._marks = _Gone(self._path)
        self._free = []


class _Gone:
    """Stands for the bytes of a sheet that is not ours any more."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getitem__(self, at: object) -> Any:
        self[at] = None

    def __setitem__(self, at: object, value: object) -> None:
        raise Closed(f"consumer {self._path.name} was retired, or belongs to the process that this one was forked from")


def write_line(data: Any, at: int, token: bytes, number: int, keep: float) -> None:
    """Write down which lease it is, and nothing of a result. Raises ValueError for what has no room in a line."""
    if len(token) > MAX_TOKEN or not 0 <= number < 1 << 64:
        raise ValueError(f"a lease sheet has no room for message {number} with a token of {len(token)} bytes")
    lease = _pack_lease(number, keep, len(token), token)
    _pack_line(data, at, zlib.crc32(lease), lease, 0, 0, 0)


def read_sheet(path: Path, boot: str) -> Left:
    """What stands on a sheet. One that is not there, torn, of another version, or of another boot or machine says
    nothing; a line that cannot be read is a lease of which nothing is known. Never raises.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            data = os.pread(fd, SIZE + 1, 0)
        finally:
            os.close(fd)
    except OSError:
        return NOTHING_LEFT
    return decode_sheet(data, boot)


def decode_sheet(data: bytes, boot: str) -> Left:
    """The same, of the bytes of a file."""
    if len(data) != SIZE or not boot:
        return NOTHING_LEFT
    magic, version, count, size, written, check = HEAD.unpack_from(data, HEAD_AT)
    if (
        (magic, version, count, size) != (MAGIC, VERSION, LINES, SIZE)
        or zlib.crc32(data[HEAD_AT : CLAIMING_AT - 4]) != check
        or written.rstrip(b"\0") != boot.encode()[:36]
    ):
        return NOTHING_LEFT
    lines: dict[tuple[bytes, int], Noted] = {}
    whole = True
    for line in range(LINES):
        mark = data[MARKS_AT + line]
        if mark == _FREE:
            continue
        at = LINES_AT + line * LINE_SIZE
        check, lease, where, size, noted = LINE.unpack_from(data, at)
        if zlib.crc32(lease) != check:
            whole = False
            continue
        number, keep, length, token = LEASE.unpack(lease)
        key = (token[:length], number)
        if key in lines:  # no consumer writes that
            lines[key] = BEGUN
        elif mark == _DONE:
            lines[key] = _done(data[where : where + size], size, noted, keep)
        else:
            lines[key] = HELD if mark == _HELD else BEGUN
    # Claimed, and killed before that stood here: nothing of it was handed out.
    claiming = data[CLAIMING_AT] == CLAIMING and whole
    return Left(lines, others=HELD if claiming else BEGUN)


def _done(note: bytes, size: int, check: int, keep: float) -> Noted:
    if not (size or check):
        return Noted(Mark.DONE, keep=keep)
    if len(note) != size or zlib.crc32(note) != check:
        return BEGUN
    try:
        result, content_type, reason = _decode_note(note)
    except (msgspec.MsgspecError, ValueError):
        return BEGUN
    return Noted(Mark.DONE, result, content_type, keep, reason)
