"""What is secret in the options of plugins never shows: not in `dropr config`, the log, or a mistake."""

import json
import logging
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner

from dropr_core import options
from dropr_core.cli.app import application
from dropr_core.config.confidential import find_secrets
from dropr_core.config.node import parse
from dropr_core.errors import ConfigError
from dropr_core.plugin.confidential import secrets_of

GATEWAYS = {
    "stomp": {"users": {"app": "geheim-1"}, "prefetch": 5},
    "memcache": {"users": {"app": "geheim-2"}},
    "sqs": {"credentials": {"AKIA": "geheim-3"}, "region": "eu-central-1"},
    "http": {"users": {"app": {"token": "geheim-4" * 4, "send": "*"}}},
}


@pytest.fixture
def file(tmp_path):
    """A node with gateways that know their users."""
    path = tmp_path / "node.yaml"
    path.write_text(json.dumps({"node": "shop", "gateways": GATEWAYS}))
    path.chmod(0o600)
    return path


def test_secrets_are_found_at_every_depth():
    """Whole mappings, lists, and options within options; what does not fit is passed over."""

    @attrs.frozen(kw_only=True)
    class Inner:
        key: str = options.secret("")
        name: str = options.option("")

    @attrs.frozen(kw_only=True)
    class Options:
        one: Inner | None = options.option(None)
        many: tuple[Inner, ...] = options.option(())
        named: dict[str, Inner] = options.option(dict)
        whole: dict[str, str] = options.secret(dict)

    inner = {"key": "k", "name": "n"}
    tree = {"one": inner, "many": [inner, 7], "named": {"a": inner}, "whole": {"x": "y", "digits": 1234}, "odd": "k"}
    assert dict(find_secrets(Options, tree, ("top",))) == {
        ("top", "one", "key"): "k", ("top", "many", 0, "key"): "k", ("top", "named", "a", "key"): "k",
        ("top", "whole", "x"): "y", ("top", "whole", "digits"): "1234",
    }  # fmt: skip
    assert list(find_secrets(Options, None, ())) == []


def test_what_nobody_can_judge_is_not_shown(tmp_path):
    """Options of a plugin that is not installed, and words that an installed one does not know, are masked; the host's
    own words, and what is known not to be secret, are shown.
    """
    path = tmp_path / "node.yaml"
    gateways = {
        "amqp": {"listen": "tcp://127.0.0.1:5672", "vhosts": {"/": {"hint": "geheim-1"}}, "pin": 4711},
        "stomp": {"prefetch": 5, "usres": {"app": "geheim-2"}},
    }
    channels = {"mail": {"handler": {"use": "no-such-handler", "hint": "geheim-3"}}}
    path.write_text(json.dumps({"node": "shop", "gateways": gateways, "channels": channels}))
    path.chmod(0o600)
    done = CliRunner().invoke(application(), ["config", "-c", str(path), "--json"])
    assert done.exit_code == 0, done.stderr
    assert "geheim" not in done.stdout
    assert "4711" not in done.stdout
    shown = json.loads(done.stdout)
    assert shown["gateways"]["amqp"]["listen"] == ["tcp://127.0.0.1:5672"]
    assert shown["gateways"]["stomp"]["prefetch"] == 5


def test_only_plugins_of_the_kinds_asked_for_are_looked_at():
    """A daemon has no use for a gateway's passwords; a plugin that is not there has none."""
    config = parse(json.dumps({"node": "shop", "gateways": {**GATEWAYS, "none-such": {"password": "x"}}}), Path())
    assert not list(secrets_of(config, ("transport",)))
    assert len(list(secrets_of(config, ("gateway",)))) == 4


def test_the_configuration_in_effect_shows_none(file):
    """`dropr config` masks what the plugins call secret, and shows the rest."""
    result = CliRunner().invoke(application(), ["config", "-c", str(file)])
    assert result.exit_code == 0
    assert "geheim" not in result.output
    assert "prefetch: 5" in result.output
    assert "eu-central-1" in result.output


def test_the_log_of_a_gateway_shows_none(file, monkeypatch):
    """Whatever a library logs, each secret of a gateway is masked in it."""
    from dropr_core.processes import gateway

    def run(_config, **_more):
        logging.getLogger("dropr").warning("%s", json.dumps(GATEWAYS))
        return 0

    monkeypatch.setattr(gateway, "run", run)
    result = CliRunner().invoke(application(), ["gateway", "-c", str(file)])
    assert "prefetch" in result.output
    assert "geheim" not in result.output


def test_a_mistake_in_a_secret_mapping_does_not_show_it(tmp_path):
    """A password of digits lacks its quotes; the mistake says so without it."""

    @attrs.frozen(kw_only=True)
    class Options:
        users: dict[str, str] = options.secret(dict)

    with pytest.raises(ConfigError) as error:
        options.build(Options, {"users": {"app": 12345678}})
    assert "users.app" in str(error.value)
    assert "12345678" not in str(error.value)
