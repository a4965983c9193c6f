"""The handler ``command``: run a program for each message, the body on its standard input.

Owns the program's life and what its exit code means: 0 done (standard output, up to 64 KiB, is the
result), 75 try again later, 65 and 100 bury the message, anything else is a failed attempt. The codes are
those of sysexits and qmail. Must not know leases or stores.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any

import attrs

from dropr_core import options as fields
from dropr_core.contracts.handler import Handler, NoResult, Work
from dropr_core.errors import PluginError, Reject, Retry, UsageError
from dropr_core.hookspecs import hookimpl
from dropr_core.model.limits import MAX_RESULT

GRACE = 5.0
"""Seconds between asking a program to end and ending it."""

_LATER = 75
_NEVER = frozenset({65, 100})
_TAIL = 500


def _check_target(text: str) -> None:
    try:
        argv = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{text!r} cannot be split into words: {error}") from None
    if not argv or not argv[0]:
        raise UsageError("no program is named; write command:/path/to/program argument")


@attrs.frozen(kw_only=True)
class Options:
    """Options of the handler ``command``."""

    target: str = fields.option(
        doc="Program and arguments, split as a shell does; no shell runs it.", check=_check_target
    )
    timeout: float | None = fields.duration(None, least=0.001, doc="After it the program is ended.", unset="no limit")
    directory: Path | None = fields.path(None, doc="Where it runs.", unset="the current directory")


class Command(Handler):
    """Runs the program in a process group of its own."""

    def __init__(self, options: Options) -> None:
        """Look for the program; raises PluginError if there is none."""
        self._options = options
        self._argv = shlex.split(options.target)
        where = options.directory or Path.cwd()
        if not where.is_dir():
            raise PluginError(f"handler command: there is no directory {where}; make it, or correct the option")
        program = self._argv[0]
        # A path is relative to where the program will run, a name is looked up in PATH.
        if shutil.which(str(where / program) if "/" in program else program) is None:
            raise PluginError(f"handler command: {program} is no program here; install it, or write its full path")
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def handle(self, work: Work) -> Any:
        """Run it once."""
        # Files and no pipes: neither a program that does not read nor one that leaves children behind can block us.
        with tempfile.TemporaryFile() as body, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            if work.large:
                with work.open() as large:  # the file itself: a copy could fill a small /tmp
                    code = self._run(work, large, out, err)
            else:
                body.write(work.body)
                body.seek(0)
                code = self._run(work, body, out, err)
            if code == 0:
                return _read_result(out)
            reason = self._reason(code, err)
        if code in _NEVER:
            raise Reject(reason)
        raise Retry(reason)

    def _run(self, work: Work, body: IO[bytes], out: IO[bytes], err: IO[bytes]) -> int:
        with self._lock:  # so that close() sees every program
            if self._closed:
                raise Retry("the handler is closed")
            try:
                process = subprocess.Popen(
                    self._argv, stdin=body, stdout=out, stderr=err, cwd=self._options.directory,
                    env={**os.environ, **_variables(work)}, start_new_session=True,
                )  # fmt: skip
            except (OSError, ValueError) as error:
                raise Retry(f"cannot start {self._argv[0]}: {error}") from error
            self._running.add(process)
        try:
            return process.wait(self._options.timeout)
        except subprocess.TimeoutExpired:
            raise Retry(f"{self._argv[0]} took longer than {self._options.timeout:g} s and was ended") from None
        finally:
            _end(process)
            with self._lock:
                self._running.discard(process)

    def _reason(self, code: int, err: IO[bytes]) -> str:
        how = f"exit code {code}" if code >= 0 else f"ended by {_signal_name(-code)}"
        size = err.seek(0, os.SEEK_END)
        err.seek(max(0, size - 4 * _TAIL))
        text = err.read().decode("utf-8", "replace").strip()[-_TAIL:]
        return f"{self._argv[0]}: {how}" + (f": {text}" if text else "")

    def close(self) -> None:
        """Ask the programs that still run to end, and end them; safe twice."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for process in running:
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        for process in running:
            if process.poll() is None:
                _signal(process, signal.SIGKILL)
                process.wait()


def _variables(work: Work) -> dict[str, str]:
    return {
        "DROPR_ID": work.id,
        "DROPR_CHANNEL": work.message.channel,
        "DROPR_ATTEMPT": str(work.attempt),
        "DROPR_SENDER": work.message.sender,
        "DROPR_CONTENT_TYPE": work.message.content_type.replace("\0", ""),
        "DROPR_POSSIBLE_DUPLICATE": "1" if work.possible_duplicate else "0",
    }


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask the whole group to end, then end it. A program that ended by itself keeps the children it left."""
    if process.poll() is not None:
        return
    _signal(process, signal.SIGTERM)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _read_result(out: IO[bytes]) -> bytes | NoResult | None:
    """What it printed; None if nothing, and no result if that is more than one may be."""
    out.seek(0)
    data = out.read(MAX_RESULT + 1)
    if len(data) > MAX_RESULT:
        return NoResult(f"an output of more than {MAX_RESULT} bytes")
    return data or None


@hookimpl
def dropr_handler(options: Options) -> Handler:
    """The handler ``command``."""
    return Command(options)
