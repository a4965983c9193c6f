"""What a process has used so far: processor, calls, bytes, memory; as the kernel counts them.

Owns reading it from /proc. Must not know what the process did for it.
"""

import os
from pathlib import Path

import attrs


@attrs.frozen
class Usage:
    """Counters of one process since its start, and its peak of memory."""

    cpu: float = 0.0
    """Seconds of a processor, its own and the kernel's for it; counted in steps of 10 ms as a rule."""
    reads: int = 0
    """System calls that read, from files, pipes and sockets alike (``recv`` is not counted by the kernel)."""
    writes: int = 0
    """System calls that write (``send`` is not counted)."""
    written: int = 0
    """Bytes that it had the file system write to a disk; 0 on a file system in memory."""
    switches: int = 0
    """How often it gave up the processor, because it had to wait or because others wanted it."""
    peak: int = 0
    """The most memory it ever had, in bytes."""

    def since(self, before: "Usage") -> "Usage":
        """What was used since then; the peak is that of its life."""
        return Usage(
            self.cpu - before.cpu, self.reads - before.reads, self.writes - before.writes,
            self.written - before.written, self.switches - before.switches, self.peak,
        )  # fmt: skip


def usage_of(pid: int) -> Usage:
    """The counters of a process. Raises OSError if it is gone; what this user may not read is 0."""
    place = Path("/proc") / str(pid)
    status = _pairs(place / "status")
    try:
        done = _pairs(place / "io")
    except PermissionError:
        done = {}
    switches = _number(status, "voluntary_ctxt_switches") + _number(status, "nonvoluntary_ctxt_switches")
    return Usage(
        _cpu(place), _number(done, "syscr"), _number(done, "syscw"), _number(done, "write_bytes"), switches,
        _number(status, "VmHWM") * 1024,
    )  # fmt: skip


def memory_of(pid: int) -> int:
    """Bytes of memory that a process has now. Raises OSError if it is gone."""
    return _number(_pairs(Path("/proc") / str(pid) / "status"), "VmRSS") * 1024


def threads_of(pid: int) -> float:
    """Seconds of a processor that the living threads of a process have used, to the nanosecond.

    For a process that hardly does anything; time of threads that have ended is not in it. Raises OSError if it is gone.
    """
    place = Path("/proc") / str(pid)
    try:
        return sum(int((task / "schedstat").read_text().split()[0]) for task in (place / "task").iterdir()) / 1e9
    except (FileNotFoundError, IndexError):  # a kernel that does not keep it
        return _cpu(place)


def _cpu(place: Path) -> float:
    fields = (place / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pairs(file: Path) -> dict[str, str]:
    lines = file.read_text(encoding="ascii", errors="replace").splitlines()
    return {name: value for name, _, value in (line.partition(":") for line in lines)}


def _number(pairs: dict[str, str], name: str) -> int:
    words = pairs.get(name, "").split()
    return int(words[0]) if words else 0
