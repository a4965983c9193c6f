"""The machine and the versions that a figure was taken with: without them it says nothing.

Owns finding them out. Changes nothing and asks nobody else.
"""

import os
import platform
import sqlite3
import time
from importlib.metadata import distributions
from pathlib import Path

WANTED = ("dropr", "apsw", "msgspec", "pycurl", "pyzmq", "uvicorn", "httptools", "attrs")
"""Distributions whose version matters: these, and everything that begins with the first."""


def describe(directory: Path) -> dict[str, str]:
    """What there is to say of the machine, and of the disk below a directory."""
    load = os.getloadavg()
    return {
        "when": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} to be used",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "file system": file_system(directory),
        "load before": " ".join(f"{value:.1f}" for value in load),
        "python": platform.python_version(),
        "sqlite of python": sqlite3.sqlite_version,
        **versions(),
    }


def versions() -> dict[str, str]:
    """Name → version of the distributions that matter here."""
    found = {dist.metadata["Name"].lower(): dist.version for dist in distributions() if dist.metadata["Name"]}
    return {name: found[name] for name in sorted(found) if name in WANTED or name.startswith(f"{WANTED[0]}-")}


def file_system(directory: Path) -> str:
    """Kind of the file system below a directory, and where it is mounted."""
    place, best = str(directory.resolve()), ("", "unknown")
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return best[1]
    for line in lines:
        _, where, kind, *_ = line.split(" ")
        inside = where in {"/", place} or place.startswith(f"{where}/")
        if inside and len(where) >= len(best[0]):  # of two at one place the later one covers the other
            best = (where, kind)
    return f"{best[1]} at {best[0]}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
