"""How a command ends when something is wrong: which exit code, and which words.

Owns the table from exceptions to exit codes and the one place that prints a mistake. Must not know
any command. Nothing here imports what the failed command did not: starting up must stay cheap.
"""

import errno
import sys
import traceback

import click

from dropr_core import errors
from dropr_core.system.exit_codes import Exit

INTERRUPTED = 130
"""128 + SIGINT, as shells count."""

TIMED_OUT = 124
"""As timeout(1) ends: what was waited for did not come."""

BROKEN_PIPE = 141
"""128 + SIGPIPE: who reads our output went away."""

_CODES: tuple[tuple[type[errors.DroprError], int], ...] = (  # the first that fits
    (errors.ConfigError, Exit.CONFIG),
    (errors.PluginError, Exit.CONFIG),
    (errors.UsageError, Exit.USAGE),
    (errors.Held, Exit.UNAVAILABLE),
    (errors.QueueFull, Exit.TEMPFAIL),
    (errors.StoreBusy, Exit.TEMPFAIL),
    (errors.StoreError, Exit.IO_ERROR),
    (errors.TransportError, Exit.UNAVAILABLE),
    (errors.BadEnvelope, Exit.DATA),
    (errors.ProtocolError, Exit.PROTOCOL),
    (errors.Refused, Exit.UNAVAILABLE),
    (errors.LeaseLost, Exit.FAILED),
    (errors.DeliveryFailed, Exit.FAILED),
    (errors.WaitTimeout, Exit.FAILED),
)
_DISK = frozenset({errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EFBIG})


class Stop(Exception):
    """A command ends here with this code; ``text`` (may be empty) goes to the error stream."""

    def __init__(self, code: int, text: str = "") -> None:
        self.code, self.text = code, text
        super().__init__(text)


def not_found(text: str) -> Stop:
    """What was named is not there."""
    return Stop(Exit.NO_INPUT, text)


def explain(error: BaseException) -> tuple[int, list[str]]:
    """Exit code and the lines (without ``dropr:``) for an exception that ended a command."""
    if isinstance(error, Stop):
        return error.code, error.text.splitlines()
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return INTERRUPTED, ["interrupted"]
    if isinstance(error, errors.ConfigError):
        cause = error.__cause__
        # Where the system was only short of something, the angel shall try again: nobody has to correct the file.
        passing = isinstance(cause, OSError) and errors.passes(cause)
        return Exit.OS_ERROR if passing else Exit.CONFIG, _with_code(list(error.problems), error)
    if isinstance(error, errors.DroprError):
        code = next((code for kind, code in _CODES if isinstance(error, kind)), Exit.SOFTWARE)
        return code, _with_code(str(error).splitlines() or [type(error).__name__], error)
    if isinstance(error, click.FileError):
        return Exit.NO_INPUT, [error.format_message()]
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else "dropr"
        return Exit.USAGE, [f"{error.format_message()} ('{where} --help' tells more)"]
    if isinstance(error, click.ClickException):
        return Exit.FAILED, [error.format_message()]
    if isinstance(error, OSError) and error.errno:
        return _of_system(error), [str(error) if error.filename is None else f"{error.filename}: {error.strerror}"]
    return Exit.SOFTWARE, [f"internal error: {type(error).__name__}: {error}; run with -vv for the traceback"]


def _with_code(lines: list[str], error: errors.DroprError) -> list[str]:
    """`dropr explain` knows more by the code at the end."""
    code = errors.code_of(error)
    return [*lines[:-1], f"{lines[-1]} [{code}]"] if lines and code else lines


def _of_system(error: OSError) -> int:
    if isinstance(error, FileNotFoundError):
        return Exit.NO_INPUT
    if isinstance(error, PermissionError):
        return Exit.NO_PERMISSION
    return Exit.IO_ERROR if error.errno in _DISK else Exit.OS_ERROR


def report(error: BaseException, *, tracebacks: bool = False) -> int:
    """Print what went wrong to the error stream, one line for each mistake; returns the exit code."""
    from dropr_core.cli.logs import one_line

    code, lines = explain(error)
    try:
        if tracebacks and not isinstance(error, Stop | click.ClickException | click.Abort):
            traceback.print_exception(error, file=sys.stderr)
        for line in lines:
            print(f"dropr: {one_line(line)}", file=sys.stderr)  # noqa: T201
    except (OSError, ValueError):  # nobody can hear us; the exit code still speaks
        pass
    return int(code)
