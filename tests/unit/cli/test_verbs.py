"""The verbs on a real node: its configuration in a file, its store in this process's memory."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from dropr_core.api.node import Node
from dropr_core.builtin.memory import medium_of
from dropr_core.cli.app import SECTIONS, application
from dropr_core.cli.failures import BROKEN_PIPE, TIMED_OUT
from dropr_core.model.names import parse_id
from dropr_core.system.exit_codes import Exit
from dropr_core.system.presence import Presence

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


@pytest.fixture
def file(tmp_path):
    """The configuration of a node that has nothing yet; what verbs store stays as long as the test."""
    path = tmp_path / "shop.yaml"
    path.write_text(YAML % {"key": "0123456789abcdef-this-is-secret"})
    kept = medium_of(SimpleNamespace(data=tmp_path / "data"))
    yield path
    del kept


@pytest.fixture
def run(file):
    """Run a verb on the node in this process."""

    def run(*arguments, **options):
        return CliRunner().invoke(application(), [*arguments, "-c", str(file)], **options)

    return run


@pytest.fixture
def told(run):
    """Run a verb with --json; its document."""

    def told(*arguments, code=0, **options):
        result = run(*arguments, "--json", **options)
        assert result.exit_code == code, (result.output, result.exception)
        return json.loads(result.stdout)

    return told


@pytest.fixture
def put(file):
    """Put messages into the node's own inbox, as if they had come; returns the ids."""

    def put(*bodies, channel="jobs", **options):
        with Node.open(file) as node:
            return [node.put(body, channel=channel, **options) for body in bodies]

    return put


def process(file, *arguments, **options):
    """Run a verb as a process of its own."""
    command = [sys.executable, "-m", "dropr_core", *arguments, "-c", str(file)]
    return subprocess.run(command, capture_output=True, check=False, timeout=60, **options)


# ── configuration ────────────────────────────────────────────────────────────────────────────────


def test_check_says_that_all_is_well(run, told, file):
    """A good configuration: exit 0, a line with its facts, and nothing is made on the disk."""
    result = run("check")
    assert result.exit_code == 0, result.output
    assert "node shop is well: 2 peers, 2 channels, storage memory" in result.stdout
    assert told("check")["ok"] is True
    assert not (file.parent / "data").exists()


def test_check_lists_every_mistake_and_ends_with_78(run, told, file):
    """A wrong configuration: each mistake on a line of its own, or in the list of the JSON."""
    file.write_text(file.read_text().replace("to: berlin", "to: berln").replace("mode: pull", "mode: pul"))
    result = run("check")
    assert result.exit_code == Exit.CONFIG
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("dropr: ") for line in lines)
    document = told("check", code=Exit.CONFIG)
    assert document["ok"] is False
    assert [f"dropr: {problem}" for problem in document["problems"]] == lines


def test_config_shows_no_secret(run, told, file):
    """The effective configuration holds defaults and no key, as YAML and as JSON."""
    key = re.search(r'key: "([^"]+)"', file.read_text())[1]
    result = run("config")
    assert result.exit_code == 0, result.output
    assert key not in result.output
    assert "shop" in result.stdout
    assert key not in json.dumps(told("config"))


def test_schema_and_plugins_need_no_node():
    """The JSON Schema and the list of plugins come without any configuration."""
    schema = CliRunner().invoke(application(), ["schema"])
    assert schema.exit_code == 0, schema.output
    assert "properties" in json.loads(schema.stdout)
    listed = CliRunner().invoke(application(), ["plugins", "--json"])
    assert listed.exit_code == 0, listed.output
    names = {(p["kind"], p["name"]) for p in json.loads(listed.stdout)["plugins"]}
    assert ("serializer", "json") in names
    assert CliRunner().invoke(application(), ["plugins"]).exit_code == 0


def test_init_writes_a_node_that_checks_and_never_overwrites(tmp_path):
    """init makes a configuration that is well and a key, both for their owner alone; a second time it refuses."""
    path = tmp_path / "new.yaml"
    result = CliRunner().invoke(application(), ["init", str(path), "--json"])
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    for name in (made["config"], made["key"]):
        assert Path(name).stat().st_mode & 0o777 == 0o600
    before = path.read_bytes(), Path(made["key"]).read_bytes()
    check = CliRunner().invoke(application(), ["check", "-c", str(path)])
    assert check.exit_code == 0, check.output
    again = CliRunner().invoke(application(), ["init", str(path)])
    assert again.exit_code == Exit.CANTCREAT
    assert "exists already" in again.stderr
    assert (path.read_bytes(), Path(made["key"]).read_bytes()) == before


def test_keygen_makes_another_key_each_time(tmp_path):
    """Two keys differ; into a file it is written for its owner alone, and never over another."""
    keys = {CliRunner().invoke(application(), ["keygen"]).stdout.strip() for _ in range(2)}
    assert len(keys) == 2
    path = tmp_path / "pair.key"
    assert CliRunner().invoke(application(), ["keygen", "--file", str(path)]).exit_code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert CliRunner().invoke(application(), ["keygen", "--file", str(path)]).exit_code == Exit.CANTCREAT


def test_keygen_makes_the_keys_of_a_transport(tmp_path):
    """The secret goes into a file for its owner alone, the public key is shown, and can be shown again."""
    path = tmp_path / "shop.curve"
    made = CliRunner().invoke(application(), ["keygen", "zmq", "--file", str(path)])
    assert made.exit_code == 0, made.output
    assert path.stat().st_mode & 0o777 == 0o600
    again = CliRunner().invoke(application(), ["keygen", "zmq", "--public-of", str(path)])
    assert again.stdout == made.stdout
    assert path.read_text().strip() not in made.output
    both = json.loads(CliRunner().invoke(application(), ["keygen", "zmq", "--json"]).stdout)
    assert both["key"]
    assert both["public"] != made.stdout.strip()


@pytest.mark.parametrize(("words", "says"), [
    (["curl"], "needs no keys of its own"),
    (["zqm"], "did you mean 'zmq'"),
    (["zmq", "--public-of", "nowhere"], "cannot be read"),
    (["--public-of", "nowhere"], "needs the name of the transport"),
])  # fmt: skip
def test_keygen_says_what_is_wrong(words, says):
    """A transport without keys, an unknown one, a file that is not there: one sentence each."""
    result = CliRunner().invoke(application(), ["keygen", *words])
    assert result.exit_code not in (0, 1)
    assert says in " ".join(result.stderr.split())


# ── sending ──────────────────────────────────────────────────────────────────────────────────────


def test_send_stores_and_prints_the_id(run, told):
    """send prints the id of a message that then is listed as queued, and cat gives its body back."""
    result = run("send", '{"sku": 7}', "--channel", "orders")
    assert result.exit_code == 0, result.output
    identity = str(uuid.UUID(result.stdout.strip()))
    (listed,) = told("list")["messages"]
    assert [listed[key] for key in ("id", "peer", "channel", "state")] == [identity, "berlin", "orders", "queued"]
    assert listed["receipt"] is True
    assert json.loads(run("cat", identity).stdout_bytes) == {"sku": 7}


def test_send_reads_files_and_standard_input_byte_for_byte(run, told, tmp_path):
    """--file and - carry any bytes to any peer, and cat gives exactly them."""
    body = bytes(range(256)) * 3 + b"\n\n"
    (tmp_path / "body").write_bytes(body)
    for options, extra in ((["--file", str(tmp_path / "body")], {}), (["-"], {"input": body})):
        sent = told("send", *options, "--to", "berlin", **extra)
        assert run("cat", sent["id"]).stdout_bytes == body


def test_send_passes_every_option_on(run, told):
    """What the command line says about a message is what the message says."""
    given = str(uuid.uuid4())
    sent = told(
        "send", "hello", "--to", "everywhere", "--channel", "notes", "--priority", "2", "--delay", "5m",
        "--expires-in", "1d", "--header", "a=b=c", "--header", "x=", "--key", "k", "--id", given, "--receipt",
    )  # fmt: skip
    assert sent["id"] == given
    assert {d["peer"] for d in sent["deliveries"]} == {"berlin", "laptop"}
    message = told("show", given)["message"]
    assert (message["priority"], message["delay"], message["expires_in"]) == (2, 300.0, 86400.0)
    assert (message["headers"], message["key"], message["receipt"]) == ({"a": "b=c", "x": ""}, "k", True)
    text = run("show", given).stdout
    assert "header a: b=c" in text
    assert "to berlin: queued" in text


def test_send_twice_with_a_dedup_key_is_one_message(told, run):
    """The same dedup key and content: the first message; other content: exit 64."""
    first = told("send", "a", "--to", "berlin", "--dedup-key", "order-1")
    second = told("send", "a", "--to", "berlin", "--dedup-key", "order-1")
    assert (first["existed"], second["existed"], first["id"]) == (False, True, second["id"])
    other = run("send", "b", "--to", "berlin", "--dedup-key", "order-1")
    assert other.exit_code == Exit.USAGE
    assert len(told("list")["messages"]) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x", "--file", "/dev/null"],
        ["x"],
        ["x", "--to", "berln"],
        ["no json", "--channel", "orders"],
        ["x", "--to", "berlin", "--channel", "not a channel"],
        ["x", "--to", "berlin", "--delay", "soon"],
        ["x", "--to", "berlin", "--priority", "10"],
        ["x", "--to", "berlin", "--header", "none"],
        ["x", "--to", "berlin", "--header", "a=1", "--header", "a=2"],
        ["x", "--to", "berlin", "--id", "7"],
    ],
)
def test_a_wrong_send_stores_nothing(run, told, arguments):
    """Each mistake at send is exit 64, one line, and nothing is in the outbox."""
    run("send", "", "--to", "laptop")  # the store exists
    result = run("send", *arguments)
    assert result.exit_code == Exit.USAGE, result.output
    assert len(result.stderr.splitlines()) == 1
    assert len(told("list")["messages"]) == 1


def test_send_wait_ends_with_1_when_it_takes_too_long(run, told):
    """--wait that runs out is exit 1 and says that the message stays on its way, and that no daemon runs."""
    result = run("send", "x", "--to", "berlin", "--wait", "0.01")
    assert result.exit_code == Exit.FAILED
    assert "stays on its way" in result.stderr
    assert "dropr up" in result.stderr
    assert len(told("list")["messages"]) == 1


# ── receiving ────────────────────────────────────────────────────────────────────────────────────


def test_receive_prints_and_acknowledges(run, put, told):
    """receive drains a channel in order; a second time there is nothing."""
    put(b"one", b"two", b"three")
    assert run("receive", "jobs", "--limit", "2").stdout == "one\ntwo\n"
    assert run("receive", "jobs").stdout == "three\n"
    assert run("receive", "jobs").stdout == ""
    (channel,) = told("status")["channels"]
    assert channel["processed"] == 3


def test_receive_that_waited_for_nothing_says_so(run, put, told):
    """A wait that ends without any message is told on standard error and ends with a code of its own; to look
    and find nothing, or fewer than the limit, is no failure."""
    nothing = run("receive", "jobs", "news", "--wait", "0.05")
    assert (nothing.exit_code, nothing.stdout) == (TIMED_OUT, "")
    assert "no message on jobs, news within 0.05 s" in nothing.stderr
    assert run("receive", "notes").exit_code == 0
    put("one")
    some = run("receive", "jobs", "--wait", "0.05", "--limit", "2")
    assert (some.exit_code, some.stdout, some.stderr) == (0, "one\n", "")


def test_receive_shows_what_is_asked_for(run, put):
    """raw is the bytes alone, json a document a line, table a line about each."""
    (identity,) = put(b"\xff\x00", headers={"a": "b"})
    peeked = run("receive", "jobs", "--peek", "--json")
    assert peeked.exit_code == 0, peeked.output
    document = json.loads(peeked.stdout)
    assert (document["id"], document["body"], document["body_base64"]) == (identity, None, "/wA=")
    assert (document["headers"], document["sender"], document["attempt"]) == ({"a": "b"}, "shop", 0)
    assert identity in run("receive", "jobs", "--peek", "--format", "table").stdout
    assert run("receive", "jobs", "--format", "raw").stdout_bytes == b"\xff\x00"
    assert run("receive", "jobs", "--format", "table").stdout == "no messages\n"


def test_a_table_shows_and_takes_nothing(run, put):
    """Sixty bytes of a body are no delivery: what a table showed is still there, as after --peek."""
    put(b"x" * 500)
    for _ in range(2):
        assert "x" * 60 + "…" in run("receive", "jobs", "--format", "table").stdout
    assert run("receive", "jobs", "--format", "table", "--wait", "1").exit_code == Exit.USAGE
    assert run("receive", "jobs", "--format", "raw").stdout == "x" * 500


def test_list_tells_the_size_of_a_large_body(run, told):
    """Not that of the envelope that names it."""
    run("send", "-", "--to", "berlin", input=b"\0" * 200_000)
    (message,) = told("list")["messages"]
    assert message["size"] > 200_000


def test_peek_takes_nothing(run, put, told):
    """--peek leaves every message ready and counts no attempt."""
    put(b"a", b"b", b"c")
    assert run("receive", "jobs", "--peek", "--limit", "2").stdout == "a\nb\n"
    states = [(m["state"], m["attempts"]) for m in told("list", "--in", "inbox")["messages"]]
    assert states == [("ready", 0)] * 3


@pytest.mark.parametrize(
    ("error", "code"),
    [(BrokenPipeError(errno.EPIPE, "gone"), BROKEN_PIPE), (OSError(errno.ENOSPC, "full"), Exit.IO_ERROR)],
)
def test_a_reader_that_goes_away_loses_nothing(run, put, told, monkeypatch, error, code):
    """When the output breaks, the message in hand is ready again at once, its attempt not counted."""
    put(b"x", b"y", b"z")
    written = []

    def write(data):
        if written:
            raise error
        written.append(data)

    with monkeypatch.context() as patch:
        patch.setattr("dropr_core.cli.output.write_bytes", write)
        assert run("receive", "jobs").exit_code == code
    assert written == [b"x\n"]
    assert [(m["state"], m["attempts"]) for m in told("list")["messages"]] == [("ready", 0)] * 2
    assert run("receive", "jobs").stdout == "y\nz\n"


# ── looking ──────────────────────────────────────────────────────────────────────────────────────


def test_a_node_without_data_says_so(run, file):
    """Looking at a node that never ran makes nothing on the disk and says what would."""
    for arguments in (["status"], ["list"], ["count"], ["show", str(uuid.uuid4())]):
        result = run(*arguments)
        assert result.exit_code == Exit.NO_INPUT, result.output
        assert "has nothing yet" in result.stderr
    assert not (file.parent / "data").exists()


def test_list_filters_and_pages(run, put, told, monkeypatch):
    """list walks page by page and shows what the filters mean, on both sides."""
    monkeypatch.setattr("dropr_core.cli.selection.PAGE", 2)
    put(*[str(n).encode() for n in range(5)])
    put(b"later", channel="late", delay="1h")
    for _ in range(5):
        run("send", "x", "--to", "everywhere")
    assert len(told("list")["messages"]) == 16
    assert len(told("list", "--limit", "0", "--in", "outbox")["messages"]) == 10
    assert len(told("list", "--limit", "3")["messages"]) == 3
    assert len(told("list", "--peer", "laptop")["messages"]) == 5
    assert len(told("list", "--channel", "late")["messages"]) == 1
    assert [m["channel"] for m in told("list", "--state", "delayed")["messages"]] == ["late"]
    assert told("list", "--state", "dead")["messages"] == []
    assert told("list", "--older-than", "1h")["messages"] == []
    one = told("list", "--limit", "1")["messages"][0]["id"]
    assert {m["id"] for m in told("list", "--id", one)["messages"]} == {one}
    text = run("list").stdout.splitlines()
    assert len(text) == 17
    assert run("list", "--state", "dead").stdout == "no messages\n"


def test_what_is_not_there_ends_with_66(run, put):
    """show, cat and cancel of an unknown id say so."""
    put(b"x")
    for verb in ("show", "cat", "cancel", "bury"):
        result = run(verb, str(uuid.uuid4()))
        assert result.exit_code == Exit.NO_INPUT, (verb, result.output)
        assert "no such message" in result.stderr


def test_status_shows_peers_channels_and_no_processes(run, put, told):
    """status has each peer of the configuration, what waits for it, each channel, and who runs: nobody."""
    put(b"x")
    run("send", "four", "--to", "berlin")
    document = told("status")
    berlin, laptop = document["peers"]
    assert (berlin["peer"], berlin["waiting"], berlin["state"]) == ("berlin", 1, "unknown")
    assert berlin["bytes"] > 0
    assert berlin["oldest"] >= 0
    assert (laptop["peer"], laptop["mode"], laptop["waiting"], laptop["oldest"]) == ("laptop", "pull", 0, None)
    assert document["channels"][0]["ready"] == 1
    assert document["processes"] == {"daemon": None, "servers": [], "workers": [], "angel": None}
    text = run("status").stdout
    assert "nothing runs here" in text
    assert "berlin" in text


def test_status_believes_only_the_living(run, file, told):
    """A report that a dead process left is not shown, whoever has its number since."""
    run("send", "x", "--to", "berlin")
    directory = file.parent / "data" / "run"
    server = Presence(directory, "server")
    server.announce({"urls": ["https://y"]})
    (directory / "server-1.json").write_text(json.dumps({"pid": 1, "urls": ["https://x"]}))
    (directory / "server-3.json").write_text("torn")
    (directory / "daemon.json").write_text(json.dumps({"pid": os.getpid(), "peers": {"berlin": {"state": "up"}}}))
    document = told("status")
    assert [server["urls"] for server in document["processes"]["servers"]] == [["https://y"]]
    assert document["processes"]["daemon"] is None
    assert document["peers"][0]["state"] == "unknown"
    assert "https://y" in run("status").stdout
    server.withdraw()
    assert told("status")["processes"]["servers"] == []


def test_count_adds_up(run, put, told):
    """count has a row for each peer and channel, and for each channel of the inbox."""
    put(b"a", b"b")
    run("receive", "jobs", "--limit", "1")
    run("send", "1", "--channel", "orders")
    document = told("count")
    (out,) = document["outbox"]
    assert (out["peer"], out["channel"], out["queued"], out["sent"]) == ("berlin", "orders", 1, 1)
    (came,) = document["inbox"]
    assert (came["channel"], came["ready"], came["processed"]) == ("jobs", 1, 1)
    assert "orders" in run("count").stdout


# ── peers and mending ────────────────────────────────────────────────────────────────────────────


def test_hold_and_release(run, told):
    """A held peer is shown as held with its reason, and so are its deliveries; release ends it."""
    run("send", "x", "--to", "everywhere")
    assert told("hold", "berlin", "--reason", "moving house")["held"] is True
    berlin = told("status")["peers"][0]
    assert (berlin["state"], berlin["reason"]) == ("held", "moving house")
    assert [m["peer"] for m in told("list", "--state", "held")["messages"]] == ["berlin"]
    assert [m["peer"] for m in told("list", "--state", "queued")["messages"]] == ["laptop"]
    assert told("release", "berlin")["was_held"] is True
    assert told("release", "berlin")["was_held"] is False
    assert told("list", "--state", "held")["messages"] == []


def test_an_unknown_peer_is_a_usage_error(run):
    """hold, release and retry of a name that is no peer: exit 64 and the names that were meant."""
    for verb in ("hold", "release", "retry"):
        result = run(verb, "berln")
        assert result.exit_code == Exit.USAGE, result.output
        assert "berlin" in result.stderr


def test_retry_leaves_word_for_the_daemon(run, told):
    """retry works without a daemon and says that none runs."""
    assert told("retry", "berlin") == {"peer": "berlin", "daemon": False}
    assert "no daemon runs" in run("retry").stdout


def test_cancel_takes_back_what_was_not_shipped(run, told):
    """cancel ends queued deliveries, of one peer or all; once more is too late and exit 1."""
    sent = told("send", "x", "--to", "everywhere")
    assert told("cancel", sent["id"], "--peer", "laptop") == {"id": sent["id"], "cancelled": 1, "too_late": 0}
    assert told("cancel", sent["id"])["cancelled"] == 1
    assert told("cancel", sent["id"], code=Exit.FAILED)["cancelled"] == 0
    assert {m["state"] for m in told("list")["messages"]} == {"cancelled"}


def test_bury_and_kick(run, put, told):
    """A buried message keeps its reason until kick makes it ready; what is buried cannot be buried again."""
    first, _second = put(b"a", b"b")
    assert told("bury", first, "--reason", "poison")["buried"] is True
    assert told("status")["dead_letters"]["inbox"] == 1
    (buried,) = told("list", "--state", "buried")["messages"]
    assert "poison" in buried["reason"]
    again = run("bury", first)
    assert again.exit_code == Exit.FAILED
    assert "is buried" in again.stderr
    assert told("kick", "--id", first) == {"kicked": 1}
    assert told("kick", "--channel", "jobs") == {"kicked": 0}
    assert sorted(run("receive", "jobs").stdout.split()) == ["a", "b"]


def test_redrive_sends_ended_deliveries_again(run, told, file):
    """A delivery that was set aside as dead is queued again; without any filter or --all nothing is done."""
    sent = told("send", "x", "--to", "berlin")
    with Node.open(file) as node:
        (lane,) = node.outbox.lanes()
        node.outbox.dead_letter(lane.lane, lane.last, "peer fails on it")
    assert told("status")["dead_letters"]["outbox"] == 1
    assert run("redrive").exit_code == Exit.USAGE
    assert told("redrive", "--id", sent["id"]) == {"redriven": 1}
    assert [m["state"] for m in told("list")["messages"]] == ["queued"]


def test_wipe_removes_only_what_has_ended(run, told, put):
    """wipe --all forgets ended messages of both halves and leaves what waits."""
    first, _second = put(b"a", b"b")
    run("bury", first)
    ended, _alive = told("send", "x", "--to", "berlin"), told("send", "y", "--to", "berlin")
    run("cancel", ended["id"])
    assert told("wipe", "--all", "--yes") == {"outbox": 1, "inbox": 1}
    assert sorted(m["state"] for m in told("list")["messages"]) == ["queued", "ready"]


def test_wipe_asks_first(run, told, put):
    """Without --yes and with nobody to ask nothing is removed; neither without a filter, nor a living state."""
    (first,) = put(b"a")
    run("bury", first)
    nobody = run("wipe", "--state", "buried")
    assert nobody.exit_code == Exit.USAGE
    assert "forget 1 of the inbox for good? nothing was removed" in nobody.stderr
    for wrong in ([], ["--state", "queued"], ["--all", "--channel", "jobs"], ["--state", "dead", "--in", "inbox"]):
        assert run("wipe", *wrong, "--yes").exit_code == Exit.USAGE
    assert len(told("list", "--state", "buried")["messages"]) == 1


# ── JSON and processes ───────────────────────────────────────────────────────────────────────────


def test_every_key_of_json_is_documented(run, told, put):
    """What --json prints is what the reference names, key by key."""
    (identity,) = put(b"x")
    sent = told("send", "x", "--to", "berlin")
    commands = {
        "check": [], "status": [], "count": [], "list": [], "show": [sent["id"]], "send": ["x", "--to", "berlin"],
        "receive": ["jobs", "--peek"], "retry": [], "hold": ["berlin"], "release": ["berlin"], "cancel": [sent["id"]],
        "bury": [identity], "kick": ["--all"], "redrive": ["--all"], "wipe": ["--all", "--yes"], "plugins": None,
        "fsck": [],
    }  # fmt: skip
    for name, arguments in commands.items():
        if arguments is None:
            document = json.loads(CliRunner().invoke(application(), [name, "--json"]).stdout)
        else:
            document = told(name, *arguments)
        keys = application().get_command(None, name).keys
        if name == "show":
            keys += application().get_command(None, "list").keys
        documents = [document, *[i for v in document.values() if isinstance(v, list) for i in v if isinstance(i, dict)]]
        documents += [value for key, value in document.items() if isinstance(value, dict) and key != "headers"]
        for each in documents:
            for key in each:
                known = f"`{key}`" in keys or key in {"queued", "ready", "held", "state"}
                assert known, f"{name} --json: {key} is not in the reference"
    covered = {*commands, "config", "init", "keygen", "schema"}
    assert covered | {"cat", "demo", "new", *SECTIONS[0][1]} == {name for _, verbs in SECTIONS for name in verbs}


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
    assert told("status")["processes"] == {"daemon": None, "servers": [], "workers": [], "angel": None}


def test_a_large_file_goes_in_and_out_byte_for_byte(run, tmp_path, put):
    """`send --file` streams, `cat` and `receive --format raw` write the very bytes, `show` says the true size."""
    data = bytes(range(256)) * 1000
    (tmp_path / "large.bin").write_bytes(data)
    identity = run("send", "--file", str(tmp_path / "large.bin"), "--to", "berlin")
    assert identity.exit_code == 0, identity.output
    identity = identity.stdout.strip()
    assert run("cat", identity).stdout_bytes == data
    shown = json.loads(run("show", identity, "--json").stdout)
    assert shown["message"]["size"] == len(data)
    assert shown["message"]["headers"] == {"filename": "large.bin"}
    assert shown["deliveries"][0]["priority"] == 5
    (waiting,) = json.loads(run("list", "--json").stdout)["messages"]
    assert waiting["priority"] == 5
    put(data)
    assert run("receive", "jobs", "--peek", "--format", "raw").stdout_bytes == data
    assert run("receive", "jobs", "--format", "raw").stdout_bytes == data
