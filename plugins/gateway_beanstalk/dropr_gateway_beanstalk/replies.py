"""The answers of beanstalkd's protocol.

Owns their bytes, and the small YAML in which statistics and lists are told. Pure.
"""

from collections.abc import Iterable

from dropr_gateway_beanstalk.commands import BAD_FORMAT, EXPECTED_CRLF, JOB_TOO_BIG, UNKNOWN_COMMAND

DELETED = b"DELETED\r\n"
RELEASED = b"RELEASED\r\n"
BURIED = b"BURIED\r\n"
TOUCHED = b"TOUCHED\r\n"
KICKED = b"KICKED\r\n"
PAUSED = b"PAUSED\r\n"
NOT_FOUND = b"NOT_FOUND\r\n"
NOT_IGNORED = b"NOT_IGNORED\r\n"
TIMED_OUT = b"TIMED_OUT\r\n"
DEADLINE_SOON = b"DEADLINE_SOON\r\n"
DRAINING = b"DRAINING\r\n"
OUT_OF_MEMORY = b"OUT_OF_MEMORY\r\n"
INTERNAL_ERROR = b"INTERNAL_ERROR\r\n"


def inserted(number: int) -> bytes:
    """A job was put."""
    return b"INSERTED %d\r\n" % number


def using(tube: str) -> bytes:
    """The tube that jobs are put into."""
    return b"USING %s\r\n" % tube.encode()


def watching(count: int) -> bytes:
    """So many tubes are watched."""
    return b"WATCHING %d\r\n" % count


def kicked(count: int) -> bytes:
    """So many jobs were kicked."""
    return b"KICKED %d\r\n" % count


def reserved(number: int, body: bytes) -> bytes:
    """A job was reserved."""
    return b"RESERVED %d %d\r\n%b\r\n" % (number, len(body), body)


def found(number: int, body: bytes) -> bytes:
    """A job is shown."""
    return b"FOUND %d %d\r\n%b\r\n" % (number, len(body), body)


def facts(pairs: Iterable[tuple[str, object]]) -> bytes:
    """Statistics. Texts that YAML could read as something else come as beanstalkd since 1.13 quotes them (`quoted`)."""
    return _chunk("".join(f"{key}: {value}\n" for key, value in pairs))


def names(tubes: Iterable[str]) -> bytes:
    """A list of tubes."""
    return _chunk("".join(f"- {tube}\n" for tube in tubes))


def quoted(text: str) -> str:
    """A text within `facts`."""
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))


def _chunk(text: str) -> bytes:
    data = b"---\n" + text.encode()
    return b"OK %d\r\n%b\r\n" % (len(data), data)


__all__ = [
    "BAD_FORMAT", "BURIED", "DEADLINE_SOON", "DELETED", "DRAINING", "EXPECTED_CRLF", "INTERNAL_ERROR", "JOB_TOO_BIG",
    "KICKED", "NOT_FOUND", "NOT_IGNORED", "OUT_OF_MEMORY", "PAUSED", "RELEASED", "TIMED_OUT", "TOUCHED",
    "UNKNOWN_COMMAND", "facts", "found", "inserted", "kicked", "names", "quoted", "reserved", "using", "watching",
]  # fmt: skip
