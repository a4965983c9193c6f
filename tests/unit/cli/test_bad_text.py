"""Bytes that are no UTF-8, and JSON that is too deep, are bad input with a reason and no internal error."""

import json
import os

import pytest
from click.testing import CliRunner

from dropr_core.cli.app import application
from dropr_core.system.exit_codes import Exit

BYTES = os.fsdecode(b"\xff")


@pytest.fixture
def run(tmp_path):
    """A verb on a node with two channels; its result."""
    file = tmp_path / "node.yaml"
    channels = {"orders": {"to": "ware", "serializer": "json"}, "plain": {"to": "ware"}}
    peers = {"ware": {"mode": "pull"}}
    file.write_text(json.dumps({"node": "shop", "insecure": True, "peers": peers, "channels": channels}))

    def call(verb, *words, at=file):
        return CliRunner().invoke(application(), [verb, "-c", str(at), *words])

    return call


@pytest.mark.parametrize(
    "words",
    [
        ("--header", f"a={BYTES}", "x"), ("--header", f"{BYTES}=a", "x"), ("--key", BYTES, "x"),
        ("--dedup-key", BYTES, "x"), ("--content-type", BYTES, "x"), ("--channel", BYTES, "x"), ("--to", BYTES, "x"),
        ("--id", BYTES, "x"), ("--channel", "orders", "[" * 5000 + "]" * 5000), ("--channel", "orders", BYTES),
        ("--channel", "orders", "[" * 150 + "]" * 150), ("--content-type", "x" * 300_000, "x"),
        ("--key", "k" * 201, "x"), ("--header", "a=" + "x" * 70_000, "x"), ("--channel", "a//b", "x"),
        ("--channel", "../a", "x"), ("--delay", "5m", "--expires-in", "5m", "x"), ("--delay", "nan", "x"),
    ],
    ids=lambda words: " ".join(words)[:40].encode("ascii", "backslashreplace").decode(),
)  # fmt: skip
def test_send_refuses_what_could_not_travel(run, words):
    """Each part of a message that a person gives is checked, and nothing is stored."""
    words = words if "--channel" in words or "--to" in words else ("--to", "ware", *words)
    result = run("send", *words)
    assert result.exit_code == Exit.USAGE, result.output
    assert "internal error" not in result.output
    assert json.loads(run("list", "--in", "outbox", "--json").stdout or "[]") in ([], {"messages": []})


@pytest.mark.parametrize("verb", ["bury", "show", "cancel", "cat", "retry", "release", "kick", "receive", "list"])
def test_other_verbs_take_bytes_for_a_mistake(run, verb):
    """Whatever a verb is about."""
    run("send", "--channel", "plain", "x")
    words = ["--channel", BYTES] if verb in {"kick", "list"} else [BYTES]
    result = run(verb, *words)
    assert result.exit_code not in {0, Exit.SOFTWARE}, result.output


def test_a_reason_that_is_no_utf8_is_kept_in_a_form_that_is(run):
    """A reason is for people: it is stored as it can be read, and shown."""
    assert run("hold", "ware", "--reason", f"{BYTES} since Monday").exit_code == 0
    status = run("status")
    assert status.exit_code == 0
    assert "since Monday" in status.output


def test_a_file_whose_name_is_no_utf8_is_sent(run, tmp_path):
    """Its name travels in a form that can."""
    file = tmp_path / f"f{BYTES}.txt"
    file.write_bytes(b"body")
    result = run("send", "--channel", "plain", "--file", str(file))
    assert result.exit_code == 0, result.output
    head = json.loads(run("show", "--json", result.stdout.strip()).stdout)["message"]
    assert head["headers"]["filename"].encode("utf-8") == rb"f\xff.txt"


@pytest.mark.parametrize("verb", ["check", "send", "status", "fsck", "config"])
def test_a_data_directory_that_is_no_utf8_is_a_mistake_of_the_configuration(run, tmp_path, verb):
    """With the line that says so, for every verb alike."""
    directory = tmp_path / f"d{BYTES}"
    directory.mkdir()
    file = directory / "node.yaml"
    file.write_text(json.dumps({"node": "shop", "insecure": True, "peers": {"ware": {"mode": "pull"}}}))
    result = run(verb, *(["--to", "ware", "x"] if verb == "send" else []), at=file)
    assert result.exit_code == Exit.CONFIG
    assert "no UTF-8 text" in result.output
