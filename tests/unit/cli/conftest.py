"""A real node for verbs: its configuration in a file, its store in the memory of this process."""

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from dropr_core.api.node import Node
from dropr_core.builtin.memory import medium_of
from dropr_core.cli.app import application

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
