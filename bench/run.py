"""Take the figures of this machine, each beside its raw limit of the same run.

    make bench                                     all of it, under 15 minutes
    .venv/bin/python bench/run.py --list           what there is
    .venv/bin/python bench/run.py send P9          some, by name or number
    .venv/bin/python bench/run.py --storage fs end-to-end

Owns the order of things: each figure in a process of its own with an end in time, so that one that fails or hangs
costs itself alone; and the report. Must not know any single figure.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.busy import kept_busy
from bench.figure import Figure, Run, Skipped, as_document
from bench.registry import chosen, figures
from dropr_core.bench.machine import describe

ROOT = Path(__file__).resolve().parents[1]
GRACE = 20.0
"""Seconds that a figure gets to write down what it has, once it is late."""
PROGRAM = __file__
"""What takes one figure in a process of its own."""
WHOLE = 14.5 * 60.0
"""Seconds after which no further figure is begun, and one under way is ended."""


def take(figure: Figure, asked: argparse.Namespace, home: Path) -> dict[str, Any]:
    """One figure, in this process."""
    run = Run(
        home, asked.rounds, asked.scale, asked.big, storages=asked.storage or ("sqlite", "fs"),
        transports=asked.transport or ("curl", "zmq"),
    )  # fmt: skip
    started, problem = time.monotonic(), ""
    try:
        assert figure.measure is not None
        with kept_busy(asked.busy):
            figure.measure(run)
    except Skipped as reason:
        problem = f"skipped: {reason}"
    except Exception as error:
        import traceback

        traceback.print_exc()
        problem = f"failed: {type(error).__name__}: {error}"
    return as_document(figure, run, seconds=time.monotonic() - started, problem=problem)


def take_apart(figure: Figure, asked: argparse.Namespace, home: Path, limit: float) -> dict[str, Any]:
    """One figure, in a process of its own that is ended with all of its children after ``limit`` seconds."""
    place = Path(tempfile.mkdtemp(prefix=f"{figure.name}-", dir=home))
    out, log = place / "figure.json", place / "figure.log"
    words = [sys.executable, PROGRAM, "--one", figure.name, "--out", str(out), "--home", str(place),
             "--rounds", str(asked.rounds), "--scale", str(asked.scale), "--busy", str(asked.busy)]  # fmt: skip
    words += ["--big"] * asked.big
    for option in ("storage", "transport"):
        for value in getattr(asked, option):
            words += [f"--{option}", value]
    started, problem, found = time.monotonic(), "", None
    with log.open("wb") as file:
        child = subprocess.Popen(
            words, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True,
            env=with_bytecode(os.environ, home),
        )  # fmt: skip
    try:
        child.wait(limit)
    except subprocess.TimeoutExpired:
        problem = f"failed: not done after {limit:.0f} s"
        child.terminate()  # it writes down what it has read so far
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # it and what it may have left behind
        child.wait()
    with contextlib.suppress(OSError, ValueError):
        document: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        document["problem"] = problem or document["problem"]
        problem, found = document["problem"], document
        if not problem.startswith("failed"):
            shutil.rmtree(place, ignore_errors=True)
            return found
    tail = log.read_text(encoding="utf-8", errors="replace")[-4000:]
    shutil.rmtree(place, ignore_errors=True)
    lines = tail.strip().splitlines()
    problem = problem or f"failed: ended with {child.returncode}: {lines[-1] if lines else 'no word'}"
    print(f"\n{figure.number} {figure.name}: {problem}\n{tail}", file=sys.stderr)
    return found or as_document(figure, None, seconds=time.monotonic() - started, problem=problem)


def with_bytecode(environment: Mapping[str, str], home: Path) -> dict[str, str]:
    """The environment for what is measured: compiled code is kept, as an installed package has it. Where Python was
    told to write none (PYTHONDONTWRITEBYTECODE), each start would compile all of dropr anew; then ``home`` keeps it.
    """
    found = dict(environment)
    if found.pop("PYTHONDONTWRITEBYTECODE", ""):
        found.setdefault("PYTHONPYCACHEPREFIX", str(home / "bytecode"))
    return found


def take_all(wanted: list[Figure], asked: argparse.Namespace, home: Path) -> list[dict[str, Any]]:
    """All of them, one after the other, with a bar for people."""
    ends = time.monotonic() + asked.minutes * 60.0
    found = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("bench", total=sum(figure.seconds for figure in wanted))
        for figure in wanted:
            if figure.measure is None:
                found.append(as_document(figure, None, problem=f"not measured: {figure.how}"))
                continue
            left = ends - time.monotonic()
            progress.update(task, description=f"{figure.number} {figure.name}, about {figure.seconds:.0f} s")
            if left < 5.0:
                found.append(as_document(figure, None, problem=f"not measured: {asked.minutes:.0f} minutes were over"))
                continue
            limit = 86_400.0 if asked.big else figure.seconds * 3 + 60
            document = take_apart(figure, asked, home, min(left, limit))
            found.append(document)
            progress.advance(task, figure.seconds)
            if not console.is_terminal:
                print(f"{figure.number:4} {figure.name}: {document['seconds']:.0f} s {document['problem']}", flush=True)
    return found


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="FIGURE", help="name or number; default: all that take no hours")
    parser.add_argument("--list", action="store_true", help="say what there is, and end")
    parser.add_argument("--storage", action="append", default=[], choices=("sqlite", "fs"), help="default: both")
    parser.add_argument(
        "--transport", action="append", default=[], choices=("curl", "zmq", "zmq-plain"), help="default: curl and zmq"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each thing is measured, after a warm-up")
    parser.add_argument("--big", action="store_true", help="also what takes many minutes: 10,000,000 waiting")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual work; below 1 only to try it out")
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="keep N processors busy beside each figure")
    parser.add_argument("--minutes", type=float, default=None, help="when to stop in any case; default 14.5")
    parser.add_argument("--directory", type=Path, help="where to work: the disk that is measured; default: $TMPDIR")
    parser.add_argument("--report", type=Path, default=ROOT / "bench" / "report", help="where the report goes")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(words)
    if asked.minutes is None:
        asked.minutes = 24 * 60.0 if asked.big else WHOLE / 60.0
    return asked


def _too_late(_number: int, _frame: object) -> None:
    """End a figure with what it has read so far."""
    raise TimeoutError("it took too long")


def main() -> int:
    """0 if every figure that was begun gave a reading, else 1; the report is written in any case."""
    asked, everything = arguments(), figures()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children are ended and directories removed
    if asked.one:
        signal.signal(signal.SIGTERM, _too_late)
        document = take(chosen([asked.one], everything)[0], asked, asked.home)
        asked.out.write_text(json.dumps(document), encoding="utf-8")
        return 0
    from bench.report import print_list, print_table, write_report

    if asked.list:
        print_list(everything)
        return 0
    try:
        wanted = chosen(asked.names, everything)
    except KeyError as unknown:
        print(f"no figure is called {unknown.args[0]}; --list shows all", file=sys.stderr)
        return 64
    with tempfile.TemporaryDirectory(prefix="dropr-bench-", dir=asked.directory, ignore_cleanup_errors=True) as home:
        machine = describe(Path(home))
        if asked.busy:
            machine["kept busy meanwhile"] = f"{asked.busy} of the processors, each by a loop that does nothing"
        found = take_all(wanted, asked, Path(home))
    print_table(found)
    write_report(asked.report, machine, found)
    print(f"table, JSON and pictures: {asked.report}")
    return int(any(document["problem"].startswith("failed") for document in found))


if __name__ == "__main__":
    sys.exit(main())
