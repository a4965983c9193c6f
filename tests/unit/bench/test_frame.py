"""The frame of the bench: one list of figures, a report whatever becomes of them, words for samples."""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bench.run as module
from bench.figure import Figure, Run, Skipped, as_document, at_least, at_most
from bench.registry import chosen, figures
from bench.relay import Relay
from bench.report import rows, write_report
from bench.run import take
from bench.tracing import read_table
from dropr_core.bench.samples import Samples, in_turns, say_number
from dropr_core.bench.usage import threads_of, usage_of

ROOT = Path(__file__).resolve().parents[3]


def figure(measure, name="one"):
    """A figure with nothing but a function."""
    return Figure("P1", name, "what", "≥ 2", "3", "how", measure, 1.0)


def asked(**more):
    """The words of a command line."""
    return argparse.Namespace(rounds=1, scale=0.1, big=False, busy=0, storage=[], transport=[], **more)


def test_every_number_of_the_page_is_in_the_list():
    """Each figure of the table in docs/performance.md is one of the bench, and each numbered one stands there."""
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    on_page = set(re.findall(r"^\| (P\d+) \|", page, re.MULTILINE))
    assert {one.number for one in figures() if re.fullmatch(r"P\d+", one.number)} == on_page
    assert len(on_page) == 24


def test_a_figure_is_found_by_name_and_by_number():
    """Whoever asks for a figure gets it once; a name that nobody has is said."""
    everything = figures()
    assert [one.number for one in chosen(["send", "P1", "P9"], everything)] == ["P1", "P9"]
    assert all(not one.only_if_named for one in chosen([], everything))
    with pytest.raises(KeyError, match="nonsense"):
        chosen(["send", "nonsense"], everything)


def test_all_figures_together_end_in_time():
    """What `make bench` takes without further words is meant to be done before the bench would end it."""
    assert sum(one.seconds for one in chosen([], figures()) if one.measure is not None) < module.WHOLE


def test_a_figure_that_fails_is_a_line_of_the_table(tmp_path, capsys):
    """An exception or a reason to skip becomes the verdict, with what was read before it."""

    def breaks(run):
        run.read("half", "/s", [1.0, 2.0, 3.0], at_least(2.0, 9.0))
        raise ValueError("no such disk")

    def skips(run):
        raise Skipped("no such program")

    found = [take(figure(breaks), asked(), tmp_path), take(figure(skips), asked(), tmp_path)]
    table = rows(found)
    assert [row[-1] for row in table] == ["reached", "failed", "skipped"]
    assert "no such disk" in table[1][2]
    write_report(tmp_path / "report", {"when": "now"}, found)
    assert json.loads((tmp_path / "report" / "figures.json").read_text())["machine"] == {"when": "now"}
    assert "no such program" in (tmp_path / "report" / "README.md").read_text()
    assert "Traceback" in capsys.readouterr().err


def test_processors_are_busy_only_while_a_figure_is_taken(tmp_path, monkeypatch):
    """Who asks for a busy machine gets that many processes beside a figure, and none after it, though it failed."""
    begun, alive = [], []

    def begin(*words, **more):
        begun.append(subprocess_popen(*words, **more))
        return begun[-1]

    def looks(run):
        alive.extend(child.poll() is None for child in begun)
        raise ValueError("enough")

    subprocess_popen = subprocess.Popen
    monkeypatch.setattr("bench.busy.subprocess.Popen", begin)
    wanted = asked()
    wanted.busy = 2
    take(figure(looks), wanted, tmp_path)
    assert alive == [True, True]
    assert [child.returncode for child in begun] == [-signal.SIGKILL] * 2


HANGS = """
import subprocess, sys, time
from pathlib import Path
import bench.run as run
from bench.figure import Figure

def hang(_run):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    Path({pid!r} + ".new").write_text(str(child.pid))
    Path({pid!r} + ".new").rename({pid!r})  # it may be ended between making the file and writing it
    time.sleep(1000)

run.figures = lambda: [Figure("P1", "hangs", "w", "b", "d", "h", hang, 1.0)]
if __name__ == "__main__":
    sys.exit(run.main())
"""


def test_a_figure_that_hangs_is_ended_with_its_children(tmp_path, monkeypatch):
    """The bench goes on after a figure that does not end, says so, and leaves no process behind."""
    pid, program = tmp_path / "pid", tmp_path / "hangs.py"
    program.write_text(HANGS.format(pid=str(pid)))
    monkeypatch.setattr(module, "PROGRAM", str(program))
    limit = 3.0
    while not pid.exists():  # on a busy machine it may not even have begun by then
        document = module.take_apart(figure(None, "hangs"), asked(), tmp_path, limit)
        limit *= 2
    assert document["problem"].startswith("failed: not done after")
    child = int(pid.read_text())
    ends = time.monotonic() + 30
    while time.monotonic() < ends and Path(f"/proc/{child}").exists():
        time.sleep(0.02)
    assert not Path(f"/proc/{child}").exists()


def test_what_is_measured_has_compiled_code(tmp_path):
    """Where Python was told to keep no compiled code, the bench keeps it in a place of its own: no start of dropr is
    measured with the compiling of all of it. Elsewhere nothing is changed.
    """
    kept = module.with_bytecode({"PYTHONDONTWRITEBYTECODE": "1", "HOME": "/h"}, tmp_path)
    assert kept == {"PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode"), "HOME": "/h"}
    words = [sys.executable, "-c", "import dropr_core"]
    subprocess.run(words, check=True, env={**os.environ, **kept, "PYTHONDONTWRITEBYTECODE": ""})
    assert list((tmp_path / "bytecode").rglob("dropr_core/__init__*.pyc"))
    assert module.with_bytecode({"HOME": "/h"}, tmp_path) == {"HOME": "/h"}


def test_samples_say_middle_and_spread():
    """The median is the middle one, the spread the range of the middle half, and a ratio is taken round by round."""
    samples = Samples([1.0, 2.0, 3.0, 4.0, 100.0])
    assert samples.median == 3.0
    assert samples.spread == pytest.approx(2 / 3)
    assert samples.percentile(0.99) == 100.0
    assert Samples([2.0, 9.0]).over(Samples([1.0, 3.0])).values == (2.0, 3.0)
    counter = iter(range(100))
    first, second = in_turns([lambda: float(next(counter)), lambda: float(next(counter))], 2)
    assert (first.values, second.values) == ((2.0, 4.0), (3.0, 5.0))
    assert [say_number(value) for value in (12345.6, 123.4, 12.34, 1.234, 0.0123, 0.0)] == [
        "12,346", "123", "12.3", "1.23", "0.012", "0",
    ]  # fmt: skip


def test_a_goal_is_reached_from_its_own_side():
    """More is better for a rate, less for a latency; a dream is more than its bar."""
    assert [at_least(2, 4).verdict(value) for value in (1, 2, 4)] == ["missed", "reached", "dream"]
    assert [at_most(4, 2).verdict(value) for value in (5, 4, 2)] == ["missed", "reached", "dream"]


def test_a_document_has_every_value():
    """What a figure read, drew and noted is in its JSON, the single values too."""
    run = Run(Path())
    run.read("sqlite", "/s", [3.0, 1.0, 2.0], at_least(2.0), raw=Samples([4.0, 4.0, 4.0]), raw_label="raw")
    run.note("a word")
    document = json.loads(json.dumps(as_document(figure(None), run)))
    (reading,) = document["readings"]
    assert (reading["median"], reading["values"], reading["raw"]["median"]) == (2.0, [3.0, 1.0, 2.0], 4.0)
    assert (reading["verdict"], document["notes"]) == ("reached", ["a word"])


def test_what_a_process_used_is_counted_by_the_kernel():
    """Processor time, calls and memory of this process grow with what it does."""
    before, exact = usage_of(os.getpid()), threads_of(os.getpid())
    ends = time.monotonic() + 30
    while usage_of(os.getpid()).cpu <= before.cpu and time.monotonic() < ends:
        sum(range(10_000))
    for _ in range(100):
        with Path("/dev/null").open("wb", buffering=0) as file:
            file.write(b"x")
    used = usage_of(os.getpid()).since(before)
    assert used.cpu > 0
    assert threads_of(os.getpid()) > exact
    assert used.writes >= 100 or used.writes == 0  # 0: this user may not read it
    assert used.peak > 1 << 20


def test_the_table_of_strace_is_read():
    """Calls are counted by name, with and without errors; the total is not one of them."""
    text = """% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.001000          10       100        12 openat
 40.00    0.000500           5        50           fdatasync
------ ----------- ----------- --------- --------- ----------------
100.00    0.001500           9       150        12 total
"""
    assert read_table(text) == {"openat": 100, "fdatasync": 50}


@pytest.mark.parametrize(("delay", "rate"), [(0.0, 0.0), (0.05, 0.0), (0.0, 50_000.0)])
def test_the_relay_carries_and_counts(delay, rate):
    """What goes in comes out, late or slowly if asked for, and every byte is counted each way."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        relay = Relay(door.getsockname()[1], delay, rate)
        try:
            with socket.create_connection(("127.0.0.1", relay.port), 30) as near:
                far, _ = door.accept()
                with far:
                    far.settimeout(30)
                    started = time.monotonic()
                    near.sendall(bytes(6000))
                    got = 0
                    while got < 6000:
                        got += len(far.recv(6000))
                    spent = time.monotonic() - started
                    far.sendall(b"back")
                    assert near.recv(10) == b"back"
                assert relay.counted() == (6000, 4)
        finally:
            relay.close()
    assert spent >= delay + (6000 / rate if rate else 0.0)
