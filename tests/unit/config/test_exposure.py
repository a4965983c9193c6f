"""What other users of the machine could read or change is said, by `check` and at every start."""

import json
import os
import stat

import pytest
from click.testing import CliRunner

from dropr_core.angel.status_file import write_state
from dropr_core.cli.app import application
from dropr_core.config.exposure import find_exposures as exposures_of
from dropr_core.config.node import from_mapping, load
from dropr_core.plugin.confidential import secrets_of
from dropr_core.system.clock import FakeClock

KEY = "k" * 32


def find_exposures(config):
    """As the verbs ask: with the secrets of the plugins."""
    return exposures_of(config, lambda: (steps for steps, _ in secrets_of(config)))


@pytest.fixture
def file(tmp_path):
    """A configuration with a key in it, which only its owner may read."""
    path = tmp_path / "node.yaml"
    path.write_text(json.dumps({"node": "shop", "data": "./data", "peers": {"ware": {"mode": "pull", "key": KEY}}}))
    path.chmod(0o600)
    return path


def test_what_is_private_needs_no_word(file):
    """The modes that dropr itself makes, and a directory that is not there yet."""
    assert find_exposures(load(file)) == ()
    (file.parent / "data").mkdir(mode=0o700)
    assert find_exposures(load(file)) == ()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
def test_a_data_directory_that_others_may_write_is_said(file, mode):
    """Whoever can replace a file there is the node."""
    data = file.parent / "data"
    data.mkdir()
    data.chmod(mode)
    (warning,) = find_exposures(load(file))
    assert "others may write" in warning
    assert f"chmod 700 {data}" in warning


def test_a_data_directory_that_others_may_read_is_said(file):
    """Bodies and results stand in it."""
    (file.parent / "data").mkdir()
    (file.parent / "data").chmod(0o755)
    (warning,) = find_exposures(load(file))
    assert "others may look into" in warning


def test_a_key_in_a_file_that_everybody_may_read_is_said_without_the_key(file):
    """It names the place and not the secret."""
    file.chmod(0o644)
    (warning,) = find_exposures(load(file))
    assert "peers.ware.key" in warning
    assert KEY not in warning


def test_a_key_from_a_file_of_its_own_may_be_named_by_everybody(file):
    """A reference is no secret; a file that root gives to a group is none of everybody."""
    (file.parent / "ware.key").write_text(KEY)
    (file.parent / "ware.key").chmod(0o600)
    file.write_text(file.read_text().replace(KEY, "${file:ware.key}"))
    file.chmod(0o644)
    assert find_exposures(load(file)) == ()


def test_the_secret_of_a_webhook_is_one_as_well(file):
    """Not only keys of peers stand in configurations."""
    handler = {"use": "webhook", "target": "http://127.0.0.1/", "secret": "s3cret of both"}
    document = {"node": "shop", "channels": {"hooks": {"handler": handler}}}
    file.write_text(json.dumps(document))
    file.chmod(0o644)
    (warning,) = find_exposures(load(file))
    assert "channels.hooks.handler.secret" in warning
    assert "s3cret" not in warning


@pytest.mark.parametrize(
    ("gateways", "places"),
    [
        ({"stomp": {"users": {"app": "s3cret of app"}}}, ["gateways.stomp.users.app stands"]),
        ({"door": {"use": "memcache", "users": {"app": "s3cret"}}}, ["gateways.door.users.app"]),
        ({"sqs": {"credentials": {"AKIA1": "s3cret one", "AKIA2": "s3cret two"}}}, ["AKIA1", "AKIA2 stand in"]),
        ({"http": {"users": {"app": {"token": "s3cret" * 6, "send": "*"}}}}, ["gateways.http.users.app.token"]),
    ],
)
def test_the_secrets_of_gateways_are_some_as_well(file, gateways, places):
    """A plugin's options say which of them are secret; the place is told, the secret is not."""
    file.write_text(json.dumps({"node": "shop", "gateways": gateways}))
    file.chmod(0o644)
    (warning,) = find_exposures(load(file))
    assert all(place in warning for place in places)
    assert "s3cret" not in warning


def test_a_password_from_a_file_of_its_own_may_be_named_by_everybody(file):
    """A reference in a plugin's options is no secret either."""
    (file.parent / "app").write_text("s3cret of app")
    (file.parent / "app").chmod(0o600)
    file.write_text(json.dumps({"node": "shop", "gateways": {"stomp": {"users": {"app": "${file:app}"}}}}))
    file.chmod(0o644)
    assert find_exposures(load(file)) == ()


def test_nobody_reads_of_a_hundred_users(file):
    """The warning names some places and counts the others."""
    users = {f"user{number}": "s3cret of app" for number in range(100)}
    file.write_text(json.dumps({"node": "shop", "gateways": {"stomp": {"users": users}}}))
    file.chmod(0o644)
    (warning,) = find_exposures(load(file))
    assert "users.user4 and 95 more secrets stand in it" in warning


def test_plugins_are_not_asked_about_a_private_file(file):
    """They would be imported for it, by the angel too."""
    assert exposures_of(load(file), lambda: pytest.fail("asked")) == ()


def test_a_configuration_that_others_may_write_is_said(file):
    """It names programs that run as this user."""
    file.chmod(0o620)
    (warning,) = find_exposures(load(file))
    assert "others may write" in warning


def test_a_program_that_brings_its_own_mapping_has_no_file(tmp_path):
    """Then only the data directory is looked at."""
    assert find_exposures(from_mapping({"node": "shop", "data": str(tmp_path / "none")}, tmp_path)) == ()


def test_check_says_it(file):
    """As text and as JSON, and the configuration is well all the same."""
    file.chmod(0o644)
    result = CliRunner().invoke(application(), ["check", "-c", str(file)])
    assert result.exit_code == 0
    assert "peers.ware.key" in result.output
    document = json.loads(CliRunner().invoke(application(), ["check", "--json", "-c", str(file)]).stdout)
    assert any("peers.ware.key" in warning for warning in document["warnings"])


def test_every_start_says_it(file, monkeypatch):
    """Before the daemon does anything else."""
    from dropr_core.processes import daemon

    monkeypatch.setattr(daemon, "run", lambda *_args, **_more: 0)
    file.chmod(0o644)
    result = CliRunner().invoke(application(), ["daemon", "-c", str(file)])
    assert "peers.ware.key" in result.output


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_the_angels_report_is_private(tmp_path, mask):
    """Whatever the umask is."""
    old = os.umask(mask)
    try:
        write_state(tmp_path / "angel.json", [], FakeClock())
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "angel.json").stat().st_mode) == 0o600
