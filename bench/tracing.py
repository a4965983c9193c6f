"""Counts the system calls of running processes with strace, where that may trace.

Owns attaching and reading its table. Tracing makes a process several times slower: nothing is timed meanwhile.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

SYNCS = frozenset({"fsync", "fdatasync", "msync", "sync_file_range", "syncfs"})


class Tracing:
    """Counts what processes call from now on."""

    def __init__(self, pids: Mapping[str, int], directory: Path) -> None:
        """Raises RuntimeError if strace does not attach to one of them."""
        self._children: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
        try:
            for place, (name, pid) in enumerate(pids.items()):
                table = directory / f"strace-{place}"
                words = ["strace", "-c", "-f", "-o", str(table), "-p", str(pid)]
                self._children[name] = (subprocess.Popen(words, stderr=subprocess.DEVNULL), table)
                self._attached(pid)
        except BaseException:
            self.end()
            raise

    def _attached(self, pid: int) -> None:
        ends = time.monotonic() + 30
        while time.monotonic() < ends:
            tracers = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
            if not any("TracerPid:\t0\n" in text for text in tracers):
                return
            if any(child.poll() is not None for child, _ in self._children.values()):
                break
            time.sleep(0.02)
        raise RuntimeError("strace could not attach")

    def end(self) -> dict[str, dict[str, int]]:
        """Name of the process → system call → how often. Detaches."""
        found = {}
        for name, (child, table) in self._children.items():
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
            child.wait(30)
            found[name] = read_table(table.read_text(encoding="utf-8") if table.exists() else "")
        return found


def read_table(text: str) -> dict[str, int]:
    """Calls by name, from what ``strace -c`` prints."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        # % time, seconds, usecs/call, calls, errors or nothing, name
        match = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)(?:\s+\d+)?\s+(\w+)$", line)
        if match and match[2] != "total":
            found[match[2]] = found.get(match[2], 0) + int(match[1])
    return found


def why_not(directory: Path) -> str:
    """Why nothing can be traced here; empty if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        Tracing({"child": child.pid}, directory).end()
    except (RuntimeError, OSError) as error:
        return f"{error} (user {os.getuid()}; see kernel.yama.ptrace_scope)"
    finally:
        child.kill()
        child.wait()
        assert child.stdin is not None
        child.stdin.close()
    return ""
