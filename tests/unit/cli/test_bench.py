"""`dropr bench`: figures for a user's own disk and lines, and nothing left behind."""

import json

import pytest
import yaml
from click.testing import CliRunner
from support.nodes import Road

from dropr_core.cli import bench
from dropr_core.cli.app import application


@pytest.fixture(autouse=True)
def briefly(monkeypatch):
    """Measurements that are over at once: what they say is not looked at here."""
    monkeypatch.setattr(bench, "SECONDS", 0.005)
    monkeypatch.setattr(bench, "MESSAGES", (2000, 5))


def run(*words):
    """What the verb printed as JSON."""
    result = CliRunner().invoke(application(), ["bench", "--json", "--rounds", "2", *words])
    assert result.exit_code == 0, result.output + result.stderr
    return json.loads(result.stdout)


def test_a_disk_is_measured_without_a_configuration(tmp_path, monkeypatch):
    """Who has no node yet learns what the disk and dropr on it reach, and the directory is as it was."""
    monkeypatch.chdir(tmp_path)
    said = run("--only", "disk")
    rows = {row["what"]: row for row in said["rows"]}
    assert {row["part"] for row in said["rows"]} == {"disk"}
    assert all(len(row["values"]) == 2 and min(row["values"]) > 0 for row in rows.values())
    assert rows["send, one by one"]["limit"]["what"] == "raw commits"
    assert "python" in said["machine"]
    assert list(tmp_path.iterdir()) == []


def test_the_line_to_a_peer_is_measured_and_leaves_nothing_there(tmp_path):
    """A peer that is up gives a round trip and a rate, one that is not up its reason; no message is stored."""
    road = Road(tmp_path)
    try:
        shop, ware = road.build("shop", "ware")
        ware.run("server")
        shop.write(
            peers={**shop.config["peers"], "gone": {"url": "http://127.0.0.1:9", "key": "of-nobody-who-answers"}}
        )
        said = run("--only", "line", "-c", str(shop.file))
        with ware.opened() as node:
            assert list(node.inbox.counts()) == []
    finally:
        road.close()
    assert [row["what"] for row in said["rows"] if not row["problem"]] == [
        "ware: request and answer", "ware: to the peer, 1 MiB at a time",
    ]  # fmt: skip
    assert all(row["median"] > 0 for row in said["rows"] if not row["problem"])
    (gone,) = [row for row in said["rows"] if row["problem"]]
    assert gone["what"].startswith("gone:")
    assert gone["median"] is None


def test_a_peer_with_another_key_is_no_line(tmp_path):
    """An answer that is not signed with the pair's key measures nothing: its reason is shown."""
    road = Road(tmp_path)
    try:
        shop, ware = road.build("shop", "ware")
        ware.run("server")
        file = tmp_path / "other.yaml"
        config = {**shop.config, "peers": {"ware": {"url": road.urls["ware"], "key": "another-key-than-that-of-ware"}}}
        file.write_text(yaml.safe_dump(config))
        (row,) = run("--only", "line", "-c", str(file))["rows"]
    finally:
        road.close()
    assert "bad_signature" in row["problem"]


@pytest.mark.e2e
def test_two_nodes_on_this_machine_are_measured(tmp_path):
    """Both are started, used and ended, and the table is for people."""
    result = CliRunner().invoke(
        application(), ["bench", "--rounds", "2", "--only", "nodes", "--directory", str(tmp_path), "--storage", "fs"]
    )
    assert result.exit_code == 0, result.output
    assert "end to end over loopback" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_no_room_is_said_before_anything_is_written(tmp_path, monkeypatch):
    """A disk that is nearly full is not filled to measure it."""
    monkeypatch.setattr(bench, "NEEDS", 1 << 60)
    result = CliRunner().invoke(application(), ["bench", "--directory", str(tmp_path)])
    assert result.exit_code == 69
    assert "MiB free" in result.output + result.stderr
