"""Gearman's admin protocol: what the texts are. What they tell is read in `administering.py`.

Does no I/O. The words are gearmand's, byte for byte, so that tools that read them find what they look for.
"""

from collections.abc import Iterable

OK = b"OK\r\n"
UNKNOWN_JOB = b"ERR UNKNOWN_JOB\r\n"
UNKNOWN_SHOW = b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"
UNKNOWN_ERROR = b"ERR UNKNOWN_ERROR\r\n"
NO_FUNCTION = b"ERR function not found\r\n"
BUSY_FUNCTION = b"ERR there are still connected workers or executing clients\r\n"
END = b".\n"


def unknown_command(word: bytes) -> bytes:
    """There is no such command."""
    return b"ERR UNKNOWN_COMMAND Unknown+server+command" + word[:100] + b"\r\n"


def incomplete(word: bytes) -> bytes:
    """The command lacks arguments."""
    return b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+" + word[:100] + b"\r\n"


def value(text: object) -> bytes:
    """One value."""
    return f"OK {text}\n".encode()


def failed(code: str, text: str) -> bytes:
    """Something else went wrong; blanks as gearmand writes them."""
    return f"ERR {code} {'+'.join(text.split())}\r\n".encode()


def table(rows: Iterable[Iterable[bytes | int]]) -> bytes:
    """Lines of fields with tabs between them, and the end."""
    lines = (b"\t".join(one if isinstance(one, bytes) else b"%d" % one for one in row) + b"\n" for row in rows)
    return b"".join(lines) + END


def worker_line(number: int, address: str, name: bytes, functions: Iterable[bytes]) -> bytes:
    """One connection in the answer to ``workers``."""
    return b" ".join((b"%d" % number, address.encode(), name or b"-", b":", *functions)) + b"\n"


def words_of(given: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The command, its first word in small letters."""
    return (given[0].lower(), *given[1:]) if given else (b"",)


__all__ = ["BUSY_FUNCTION", "END", "NO_FUNCTION", "OK", "UNKNOWN_ERROR", "UNKNOWN_JOB", "UNKNOWN_SHOW", "failed",
           "incomplete", "table", "unknown_command", "value", "words_of", "worker_line"]  # fmt: skip
