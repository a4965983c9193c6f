"""Clients of SQS as they are, and nodes with this door, as real processes."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from sqs_boto import KEY, SECRET, connect
from support.gateways import open_doors
from support.nodes import Road


@pytest.fixture(scope="session")
def shared_node(tmp_path_factory):
    """One node with a door that lives through all tests: each uses queues of its own."""
    road = Road(tmp_path_factory.mktemp("sqs"))
    yield open_doors(road, "shop", "sqs", options={"sqs": {"credentials": {KEY: SECRET}}}, channels={"given": {}})
    road.close()


@pytest.fixture
def road(tmp_path):
    """Nodes of a test's own."""
    road = Road(tmp_path)
    yield road
    road.close()


@pytest.fixture(params=["json", "query"])
def sqs(request, shared_node):
    """boto3 at the shared door, once in each protocol."""
    client = connect(shared_node.url("sqs"), protocol=request.param)
    yield client
    client.close()


@pytest.fixture
def queue(request, sqs):
    """The URL of a queue that no other test uses."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[-60:]
    return sqs.create_queue(QueueName=name.strip("-"))["QueueUrl"]
