"""What holds for all verbs: documented JSON, exit codes that reach the shell, verbs that run processes."""

import json
import re
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from dropr_core.cli.app import SECTIONS, application
from dropr_core.model.names import parse_id
from dropr_core.system.exit_codes import Exit

YAML = """
node: shop
data: ./data
storage: memory
peers:
  berlin: {url: "https://127.0.0.1:9", key: "%(key)s"}
  laptop: {mode: pull, key: "%(key)s"}
groups:
  everywhere: [berlin, laptop]
limits: {min_free: 0}
channels:
  orders: {to: berlin, serializer: json, receipt: true}
  notes: {serializer: text}
"""


def process(file, *arguments, **options):
    """Run a verb as a process of its own."""
    command = [sys.executable, "-m", "dropr_core", *arguments, "-c", str(file)]
    return subprocess.run(command, capture_output=True, check=False, timeout=60, **options)


FREE = {"headers", "machine"}
"""Mappings whose keys are names that others chose."""


def test_every_key_of_json_is_documented(run, told, put):
    """What --json prints is what the reference names, key by key."""
    (identity,) = put(b"x")
    sent = told("send", "x", "--to", "berlin")
    commands = {
        "check": [], "explain": None, "status": [], "top": ["--count", "1"],
        "count": [], "list": [], "show": [sent["id"]], "send": ["x", "--to", "berlin"],
        "trace": [sent["id"], "--local"],
        "receive": ["jobs", "--peek"], "retry": [], "hold": ["berlin"], "release": ["berlin"], "cancel": [sent["id"]],
        "bury": [identity], "kick": ["--all"], "redrive": ["--all"], "wipe": ["--all", "--yes"], "plugins": None,
        "fsck": [], "bench": ["--only", "line", "--rounds", "2"], "pause": ["notes"], "unpause": ["notes"],
        "subscribe": ["prices", "audit"], "topics": [], "unsubscribe": ["prices", "audit"], "health": [],
        "install": ["--user", "--print"], "invite": ["--list"],
        "schedule": ["add", "nightly", "--cron", "@daily", "--channel", "notes"],
    }  # fmt: skip
    for name, arguments in commands.items():
        if arguments is None:
            document = json.loads(CliRunner().invoke(application(), [name, "--json"]).stdout)
        else:
            document = told(name, *arguments, code=1 if name == "health" else 0)  # nothing runs here
        keys = application().get_command(None, name).keys
        for other in {"show": ["list"], "top": ["status"]}.get(name, []):
            keys += application().get_command(None, other).keys
        documents = [document, *[i for v in document.values() if isinstance(v, list) for i in v if isinstance(i, dict)]]
        documents += [value for key, value in document.items() if isinstance(value, dict) and key not in FREE]
        for each in documents:
            for key in each:
                known = f"`{key}`" in keys or key in {"queued", "ready", "held", "state"}
                assert known, f"{name} --json: {key} is not in the reference"
    covered = {*commands, "config", "dashboard", "init", "join", "keygen", "outbox", "schema"}
    assert covered | {"cat", "completion", "demo", "manual", "metrics", "new", *SECTIONS[0][1]} == {
        name for _, verbs in SECTIONS for name in verbs
    }


@pytest.mark.e2e
def test_exit_codes_reach_the_shell(file):
    """A process ends with the code of its mistake and says it on standard error alone."""
    missing = process(file.with_name("none.yaml"), "status")
    assert missing.returncode == Exit.CONFIG
    assert missing.stdout == b""
    unknown = process(file, "send", "x", "--to", "nobody")
    assert (unknown.returncode, unknown.stdout) == (Exit.USAGE, b"")
    assert unknown.stderr.startswith(b"dropr: no peer or group 'nobody'")
    good = process(file, "send", "x", "--to", "berlin", stdin=subprocess.DEVNULL)
    assert (good.returncode, good.stderr) == (0, b"")
    assert parse_id(good.stdout.decode().strip())


@pytest.mark.e2e
def test_daemon_runs_alone_and_up_runs_everything(file, told):
    """A second daemon is refused with 69 and the first one's pid; up starts what run: names and ends clean."""
    file.write_text(file.read_text() + "run: [daemon]\n")
    file.chmod(0o600)
    command = [sys.executable, "-m", "dropr_core", "up", "-c", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as angel:
        seen = []
        for line in angel.stderr:  # ends at the latest when the angel does
            seen.append(line)
            if " daemon  daemon of shop" in line:
                break
        try:
            second = process(file, "daemon")
            assert second.returncode == Exit.UNAVAILABLE, seen
            assert b"is held by pid" in second.stderr
            processes = told("status")["processes"]
            assert processes["angel"]["pid"] == angel.pid
            assert [child["name"] for child in processes["angel"]["children"]] == ["daemon"]
            assert processes["daemon"] is not None
            assert process(file, "up").returncode == Exit.UNAVAILABLE
        finally:
            angel.send_signal(signal.SIGTERM)
            rest = angel.stderr.read()
        assert angel.wait(timeout=60) == 0, (seen, rest)
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d angel   angel \d+ watches daemon\n", seen[0])
    nothing = {"daemon": None, "servers": [], "workers": [], "gateways": [], "pages": [], "monitors": [], "angel": None}
    assert told("status")["processes"] == nothing
