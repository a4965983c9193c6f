"""Counters of what a piece of code does: Python functions, SQL, memory, and system calls by strace.

Owns how each is counted. All are the same on a busy machine as on a quiet one. Must not know budgets.
"""

import gc
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

SYNCS = ("fsync", "fdatasync", "sync_file_range", "msync")
COUNTED = re.compile(
    r"^(?:\d+ +)?(openat|close|read|pread64|readv|write|pwrite64|writev|pwritev2?|fsync|fdatasync|sync_file_range|msync"
    r"|fcntl|flock|ftruncate|fallocate|stat|fstat|lstat|newfstatat|statx|unlink|unlinkat|rename|renameat2?|getdents64"
    r"|mkdir|mkdirat|poll|ppoll|epoll_wait|epoll_pwait|sendto|sendmsg|recvfrom|recvmsg|socket|connect)\("
)
"""What touches files and sockets. Memory and locks between threads are left out: they depend on the moment."""
SAME = {"newfstatat": "stat", "fstat": "stat", "lstat": "stat", "statx": "stat", "unlinkat": "unlink",
        "mkdirat": "mkdir", "renameat": "rename", "renameat2": "rename"}  # fmt: skip
"""Which of these is called depends on the C library."""


class Functions:
    """Calls of functions in this thread, those of C among them."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def count(self, act: Callable[[], None]) -> "Functions":
        """Count while ``act`` runs."""
        calls: Counter[tuple[bool, Any]] = Counter()

        def note(frame: Any, event: str, argument: Any) -> None:
            if event == "call":
                calls[True, frame.f_code] += 1
            elif event == "c_call":
                calls[False, getattr(argument, "__qualname__", "?")] += 1

        collecting = gc.isenabled()
        gc.disable()  # what a collection calls depends on everything else in the process
        sys.setprofile(note)
        try:
            act()
        finally:
            sys.setprofile(None)
            if collecting:
                gc.enable()
        for (python, code), number in calls.items():
            self.calls[_name(code) if python else f"{code} (C)"] += number
        return self


def _name(code: Any) -> str:
    return f"{Path(code.co_filename).name}:{code.co_qualname}"


class Statements:
    """What SQLite does for the connections that are opened while this is installed."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.steps = 0
        """Instructions of its virtual machine: a plan that reads too much takes more of them."""
        self._counting = False

    def install(self, connection: Any) -> None:
        """A hook for apsw."""
        import apsw

        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, self._note, id=self)

    def _note(self, event: dict[str, Any]) -> None:
        if self._counting:
            self.calls[" ".join(event["sql"].split())] += 1
            self.steps += event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]

    def count(self, act: Callable[[], None]) -> "Statements":
        """Count while ``act`` runs, from zero."""
        self.calls.clear()
        self.steps, self._counting = 0, True
        try:
            act()
        finally:
            self.stop()
        return self

    def stop(self) -> None:
        """What follows does not count any more."""
        self._counting = False


def peak_of(act: Callable[[], None]) -> int:
    """Bytes of Python's memory that ``act`` needs at most."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        act()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def system_calls(directory: Path, storage: str) -> dict[str, Counter[str]] | None:
    """Operation → system call → how often, in a process of its own; None where nothing can trace."""
    strace = shutil.which("strace")
    if (
        strace is None
        or subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True, check=False).returncode
    ):
        return None
    log, program = directory / "trace", Path(__file__).with_name("operations.py")
    words = [strace, "-f", "-qq", "-o", str(log), sys.executable, str(program), str(directory), storage]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    return read_trace(log.read_text(encoding="utf-8", errors="replace"))


def read_trace(text: str) -> dict[str, Counter[str]]:
    """What stands between the marks."""
    found: dict[str, Counter[str]] = {}
    current: Counter[str] | None = None
    for line in text.splitlines():
        if match := re.search(r'"/mark/(begin|end)/([^"]+)"', line):
            current = found.setdefault(match[2], Counter()) if match[1] == "begin" else None
        elif current is not None and (call := COUNTED.match(line)):
            current[SAME.get(call[1], call[1])] += 1
    return found
