"""The handler `command`: what a program gets, what its end means, and how it is ended."""

import json
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from unit.builtin.works import LONG, work

from dropr_core.builtin.handlers import command
from dropr_core.contracts.handler import NoResult
from dropr_core.errors import DroprError, PluginError, Reject, Retry
from dropr_core.model.limits import MAX_RESULT


def script(text):
    return shlex.join([sys.executable, "-c", text])


def test_a_program_gets_the_body_and_its_output_is_the_result(make):
    """The body stands on standard input, the facts in the environment; no shell is involved."""
    facts = "{k: v for k, v in os.environ.items() if k.startswith('DROPR_')}"
    handler = make("command", script(f"import json, os, sys; print(json.dumps([sys.stdin.read(), {facts}]))"))
    body, environment = json.loads(handler.handle(work(b"$(x); `y`", 4)))
    assert body == "$(x); `y`"
    assert environment["DROPR_ID"] == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert environment["DROPR_CHANNEL"] == "orders/eu"
    assert (environment["DROPR_ATTEMPT"], environment["DROPR_SENDER"]) == ("4", "shop")


def test_a_program_may_ignore_its_input_and_be_silent(make):
    """A program that reads nothing of a large body does not block, and no output is no result."""
    assert make("command", script("pass")).handle(work(b"x" * 10**6)) is None


def test_an_output_that_is_too_large_is_said(make):
    """The program has done its work; that its output cannot be a result is reported, and nothing is cut off."""
    answer = make("command", script(f"print('x' * {MAX_RESULT})")).handle(work())
    assert answer == NoResult(f"an output of more than {MAX_RESULT} bytes")


@pytest.mark.parametrize(
    ("code", "error"),
    [("sys.exit(75)", Retry), ("sys.exit(65)", Reject), ("sys.exit(100)", Reject), ("sys.exit(1)", Retry),
     ("os.kill(os.getpid(), 9)", Retry)],
)  # fmt: skip
def test_the_exit_code_is_the_verdict(make, code, error):
    """Codes of sysexits and qmail; the end of standard error is the reason."""
    handler = make("command", script(f"import os, sys; print('y' * 9999, 'why', file=sys.stderr, flush=True); {code}"))
    with pytest.raises(error, match=r"y why$") as caught:
        handler.handle(work())
    assert type(caught.value) is error
    assert len(caught.value.reason) < 700


def test_a_program_that_takes_too_long_is_ended_with_its_children(make, tmp_path):
    """The time-out ends the whole process group."""
    pid = tmp_path / "pid"
    child = f"import subprocess, pathlib; p = subprocess.Popen(['sleep', '1000']); pathlib.Path({str(pid)!r}).write_text(str(p.pid)); p.wait()"  # noqa: E501
    handler = make("command", script(child), timeout="2s")
    with pytest.raises(Retry, match="took longer than 2 s"):
        handler.handle(work())
    deadline = time.monotonic() + LONG
    while alive(int(pid.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid):
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_close_ends_a_program_that_does_not_want_to_end(make, monkeypatch, tmp_path):
    """After a grace it is killed, so that nothing works on for a message that another worker may have."""
    monkeypatch.setattr(command, "GRACE", 0.05)
    handler = make("command", f"sh -c 'trap \"\" TERM; touch {tmp_path}/up; while :; do sleep 0.01; done'")

    def call():
        with pytest.raises(DroprError):
            handler.handle(work())

    thread = threading.Thread(target=call)
    thread.start()
    deadline = time.monotonic() + LONG
    while not ((tmp_path / "up").exists() and handler._running):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    (process,) = handler._running
    handler.close()
    assert process.poll() == -signal.SIGKILL
    thread.join(LONG)
    assert not thread.is_alive()


def test_close_ends_a_running_program(make):
    """The worker's end does not wait for a program that runs for ever."""
    handler = make("command", "sleep 1000")
    ends = []

    def call():
        try:
            handler.handle(work())
        except DroprError as error:
            ends.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    deadline = time.monotonic() + LONG
    while not handler._running:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    handler.close()
    thread.join(LONG)
    assert "SIGTERM" in str(ends[0])
    with pytest.raises(Retry, match="closed"):
        handler.handle(work())


def test_a_missing_program_or_directory_is_refused_at_start(make, tmp_path):
    """The worker says at start which program is missing."""
    with pytest.raises(PluginError, match="dropr-no-such-program is no program here"):
        make("command", "dropr-no-such-program -x")
    with pytest.raises(PluginError, match="no directory"):
        make("command", "true", directory=str(tmp_path / "no"))
    (tmp_path / "hook").write_text("#!/bin/sh\npwd\n")
    (tmp_path / "hook").chmod(0o700)
    assert make("command", "./hook", directory=str(tmp_path)).handle(work()).strip() == os.fsencode(tmp_path)
