"""The verbs about configuration: check, config, schema, init, keygen."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from dropr_core.cli.app import application
from dropr_core.system.exit_codes import Exit


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
    assert [f"dropr: {problem}" for problem in document["problems"]] == [
        lines[0],
        lines[1].removesuffix(" [config-error]"),
    ]


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
