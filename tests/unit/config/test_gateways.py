"""`gateways:` in the file: the host's words are read by the host, the rest is left to the plugin."""

from pathlib import Path

import pytest

from dropr_core.config.docs import masked
from dropr_core.config.node import parse
from dropr_core.errors import ConfigError

HERE = Path("/srv/node")


def test_the_hosts_words_and_the_plugins_are_told_apart():
    """`listen` and its like belong to the host, everything else goes to the plugin as it stands."""
    config = parse(
        "node: a\ngateways:\n  beanstalk: {listen: 'tcp://127.0.0.1:0', max_connections: 5, max_job: 64KiB}\n"
        "  second: {use: beanstalk, listen: ['tcp://127.0.0.1:1', 'unix:///run/b']}\n  stomp:\n",
        HERE,
    )
    beanstalk, second, stomp = config.gateways.values()
    assert (beanstalk.plugin, beanstalk.listen, beanstalk.max_connections) == ("beanstalk", ("tcp://127.0.0.1:0",), 5)
    assert beanstalk.options == {"max_job": "64KiB"}
    assert (second.plugin, second.name, len(second.listen)) == ("beanstalk", "second", 2)
    assert (stomp.listen, stomp.insecure, stomp.options) == ((), False, {})


def test_a_node_with_gateways_runs_them():
    """Without `run:` the angel keeps a gateway process where there are gateways."""
    assert parse("node: a\ngateways: {stomp: }", HERE).run == ("daemon", "gateway")
    assert parse("node: a", HERE).run == ("daemon",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gateways: {stomp: {max_connections: 0}}", "gateways.stomp.max_connections: 0 is too small"),
        ("gateways: {stomp: tcp}", "gateways.stomp: expected a mapping such as {listen: URL}, found 'tcp'"),
        ("gateways: [stomp]", "gateways: expected a mapping of gateways by name, found a list"),
        ("gateways: {'a b': }", "gateways.'a b': gateway 'a b': use 1 to 64"),
    ],
)
def test_mistakes_are_said_at_their_place(text, said):
    """A wrong word of the host's is refused when the file is read."""
    with pytest.raises(ConfigError) as error:
        parse(f"node: a\n{text}", HERE)
    assert said in str(error.value)


def test_secrets_of_a_plugin_are_masked():
    """What is in force is shown without the passwords of a plugin whose class is not at hand."""
    config = parse("node: a\ngateways: {stomp: {password: very-secret, heartbeat: 5s}}", HERE)
    shown = masked(config)["gateways"]["stomp"]
    assert shown["password"] == "***"
    assert shown["heartbeat"] == "5s"
    assert "very-secret" not in repr(config)
