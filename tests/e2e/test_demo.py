"""The demo: its book-keeping, its road, and the whole of it in small."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner
from rich.console import Console

from dropr_core.cli.app import application
from dropr_core.cli.demo import demo_verb
from dropr_core.demo import scenario
from dropr_core.demo.handlers import answer
from dropr_core.demo.mail import FileMail, Orders
from dropr_core.demo.report import Outcome, as_json, print_report
from dropr_core.demo.road import Road
from dropr_core.demo.tally import DemoResult, Recovery, Stream


def stream_of(*numbers, sent=None):
    """A stream of one lane in which these messages came."""
    stream = Stream("x")
    stream.sent(len(numbers) if sent is None else sent)
    for number in numbers:
        stream.arrived(number, "lane", number)
    return stream


def verdict_of(stream, **changes):
    """A run that was perfect but for this stream, or these changes."""
    perfect = DemoResult((stream.row(),), 2, 2, 0, (Recovery("killed", 0.5),))
    return attrs.evolve(perfect, **changes)


# ── the book-keeping ─────────────────────────────────────────────────────────────────────────────


def test_all_in_order_is_good():
    """What came once, in order and unaltered is a success, in any mixture of lanes."""
    stream = Stream("x")
    for number, (lane, count) in enumerate([("a", 0), ("b", 0), ("b", 1), ("a", 1)]):
        stream.sent()
        stream.arrived(number, lane, count)
    assert stream.complete
    assert stream.row().good
    assert verdict_of(stream).good


@pytest.mark.parametrize(
    ("stream", "fault"),
    [
        (stream_of(0, 1, 3, sent=4), "lost"),
        (stream_of(sent=3), "lost"),
        (stream_of(0, 1, 2, sent=4), "lost"),
        (stream_of(0, 1, 1, 2, sent=3), "doubled"),
        (stream_of(0, 2, 1), "misordered"),
        (stream_of(0, 1, 2, sent=2), "wrong"),
        (stream_of(0, 1, -1, sent=2), "wrong"),
    ],
)
def test_one_fault_makes_the_demo_fail(stream, fault):
    """One message lost, doubled, out of order or never sent is counted as just that, and is no success."""
    row = stream.row()
    assert getattr(row, fault) >= 1
    assert [name for name in ("lost", "doubled", "misordered", "wrong") if getattr(row, name)] == [fault]
    assert not verdict_of(stream).good


def test_a_double_does_not_hide_a_loss():
    """Three sent, three came, but one of them twice: one is lost, one is doubled."""
    row = stream_of(0, 1, 1, sent=3).row()
    assert (row.sent, row.received, row.lost, row.doubled) == (3, 2, 1, 1)


def test_an_altered_message_is_no_success():
    """A file whose digest differs came, but the demo fails."""
    stream = Stream("x")
    stream.sent()
    stream.arrived(0, "lane", 0, intact=False)
    assert stream.row().wrong == 1
    assert not verdict_of(stream).good


@pytest.mark.parametrize(
    "changes",
    [
        {"receipts_good": 1},
        {"receipts_good": 1, "receipts_bad": 1},
        {"recoveries": (Recovery("killed", None),)},
        {"missing": "not everything came within 120 s"},
        {"rows": ()},
    ],
)
def test_everything_else_must_be_true_as_well(changes):
    """A receipt that is missing or wrong, a recovery that never came, a deadline, or nothing sent: no success."""
    assert verdict_of(stream_of(0, 1)).good
    assert not verdict_of(stream_of(0, 1), **changes).good


def test_recovery_is_the_arrival_of_something_sent_after_the_blow():
    """A message that was under way already does not end the clock."""
    stream = stream_of(0, sent=3)
    assert stream.watch() == 3
    stream.arrived(1, "lane", 1)
    assert stream.watched_at is None
    stream.sent()
    stream.arrived(3, "other", 0)
    assert stream.watched_at is not None


def test_the_report_says_what_is_wrong():
    """Table and JSON show the fault, what is missing and the last words of the angels."""
    verdict = verdict_of(stream_of(0, sent=2), missing="not everything came within 9 s")
    outcome = Outcome(verdict=verdict, seconds=2.0, total_seconds=3.0, messages=1, file_bytes=0, files_skipped=0,
                      restarts={"shop daemon": 1}, tails={"shop": ["[bold]boom[/]"]})  # fmt: skip
    console = Console(width=100, file=io.StringIO())
    with console.capture() as captured:
        print_report(outcome, console)
    text = captured.get()
    for word in ("A promise was not kept", "not everything came within 9 s", "[bold]boom[/]", "shop daemon"):
        assert word in text
    document = json.loads(json.dumps(as_json(outcome)))
    assert document["good"] is False
    assert document["streams"][0]["lost"] == 1
    assert [key for key in (*document, *document["streams"][0]) if f"`{key}`" not in demo_verb.keys] == []


# ── the parts ────────────────────────────────────────────────────────────────────────────────────


def test_files_that_are_too_large_are_counted_and_skipped(tmp_path):
    """Every file of the directory is sent with its digest; one above the limit is not."""
    (tmp_path / "sub").mkdir()
    for name, size in (("a", 10), ("sub/b", 0), ("c", 99)):
        (tmp_path / name).write_bytes(b"x" * size)
    mail = FileMail.of(tmp_path, 50)
    pieces = [piece for group in mail.groups(mail.paths(), max_count=1) for piece in group]
    assert [(piece.name, len(piece.body)) for piece in pieces] == [("a", 10), ("sub/b", 0)]
    assert mail.skipped == 1


def test_orders_are_numbered_within_their_lane():
    """Each priority has its own count without gaps, across calls."""
    orders = Orders()
    taken = [*orders.take(13), *orders.take(20)]
    assert [value["n"] for value, _ in taken] == list(range(33))
    for priority in {priority for _, priority in taken}:
        counts = [value["count"] for value, own in taken if own == priority]
        assert counts == list(range(len(counts)))


def test_the_answer_to_a_job_depends_on_its_body():
    """A receipt's result proves that the worker had the very body."""
    assert answer(b"a", 1) != answer(b"b", 1)


@pytest.mark.e2e
def test_a_closed_road_resets_and_refuses_and_opens_again():
    """Closing cuts connections that are open and refuses new ones, until the road is open again."""
    with socket.create_server(("127.0.0.1", 0)) as target:

        def echo():
            while True:
                try:
                    connection, _ = target.accept()
                except OSError:
                    return
                with connection:
                    try:
                        while data := connection.recv(100):
                            connection.sendall(data)
                    except OSError:
                        continue

        threading.Thread(target=echo, daemon=True).start()
        road = Road(target.getsockname()[1])
        try:
            port = road.start()

            def talk(connection):
                connection.sendall(b"hello")
                return connection.recv(100)

            with socket.create_connection(("127.0.0.1", port), 10) as connection:
                assert talk(connection) == b"hello"
                road.shut()
                with pytest.raises(ConnectionError):
                    assert connection.recv(100), "an end without a reset"
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 10)
            road.reopen()
            with socket.create_connection(("127.0.0.1", port), 10) as connection:
                assert talk(connection) == b"hello"
        finally:
            road.close()
            road.close()
            target.shutdown(socket.SHUT_RDWR)


# ── all of it ────────────────────────────────────────────────────────────────────────────────────


def start_demo(tmp_path: Path, *arguments: str) -> "subprocess.Popen[str]":
    files, home = tmp_path / "files", tmp_path / "home"
    files.mkdir()
    home.mkdir()
    for number in range(7):
        (files / f"{number}.bin").write_bytes(os.urandom(number * 30_000))
    return subprocess.Popen(
        [sys.executable, "-m", "dropr_core", "demo", "--files", str(files), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(home)},
    )  # fmt: skip


def members_of(home: Path) -> list[int]:
    """Processes whose command line names something below a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(home).encode() in line:
                found.append(int(entry.name))
    return found


def until(condition, what, timeout=60.0):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"never happened: {what}")


@pytest.mark.e2e
def test_the_demo_in_small(tmp_path):
    """A small run with both kills and the closed road ends with 0, says the truth and leaves nothing behind."""
    process = start_demo(tmp_path, "--messages", "2000", "--json", "--deadline", "250s")
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, out + err
    document = json.loads(out)
    assert document["good"] is True
    assert [(each["sent"], each["received"]) for each in document["streams"]] == [
        (7, 7), (2000, 2000), (500, 500), (500, 500),
    ]  # fmt: skip
    assert document["receipts"] == {"wanted": 200, "good": 200, "bad": 0, "missing": 0}
    assert [each["what"].split()[0] for each in document["recoveries"]] == ["daemon", "server", "road"]
    assert document["restarts"] == {"shop daemon": 1, "warehouse server": 1}
    assert list((tmp_path / "home").iterdir()) == []
    assert members_of(tmp_path / "home") == []


@pytest.mark.e2e
def test_a_deadline_that_cannot_be_kept_ends_with_1(tmp_path):
    """When time is over the demo says what is missing, shows the angels' last words, and ends with 1."""
    process = start_demo(tmp_path, "--messages", "100", "--deadline", "10ms")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, out + err
    assert "A promise was not kept" in out
    assert "within 0.01 s" in out
    assert members_of(tmp_path / "home") == []


@pytest.mark.e2e
def test_ending_the_demo_ends_all_of_its_processes(tmp_path):
    """SIGTERM in the middle ends the demo as Ctrl-C does: no process and no directory stays."""
    home = tmp_path / "home"
    process = start_demo(tmp_path, "--messages", "100000")
    until(lambda: len(members_of(home)) >= 7, "all processes are there")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert members_of(home) == []
    assert list(home.iterdir()) == []


@pytest.mark.e2e
def test_a_message_that_comes_twice_makes_the_whole_demo_end_with_1(tmp_path, monkeypatch):
    """One double among thousands, everything else being perfect, is in the table and ends with 1."""
    real = scenario.enter_json

    def twice(stream):
        enter = real(stream)

        def enter_twice(received):
            enter(received)
            if received.channel == "orders" and received.value["n"] == 77:
                enter(received)

        return enter_twice

    monkeypatch.setattr(scenario, "enter_json", twice)
    (tmp_path / "one.txt").write_text("one")
    result = CliRunner().invoke(
        application(), ["demo", "--files", str(tmp_path), "--messages", "500", "--json", "--deadline", "250s"]
    )
    assert result.exit_code == 1, result.output
    document = json.loads(result.stdout)
    assert [each["doubled"] for each in document["streams"]] == [0, 1, 0, 0]
    assert [each["lost"] for each in document["streams"]] == [0, 0, 0, 0]
    assert document["missing"] == ""


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["paper", "memory"])
def test_a_storage_that_cannot_serve_is_a_mistake_of_the_configuration(name):
    """Not installed, or not for several processes: no broken promise; the demo says it at once and ends with 78."""
    result = CliRunner().invoke(application(), ["demo", "--storage", name])
    assert result.exit_code == 78, result.output
    assert f"storage '{name}'" in result.stderr
    assert "Traceback" not in result.output
