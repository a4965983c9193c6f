"""Clients of SQS as they are, and nodes with this door, as real processes."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support import clients
from support.gateways import open_doors
from support.nodes import Road

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
REGION = "us-east-1"


def connect(url, *, key=KEY, secret=SECRET, protocol="json", **config):
    """boto3's client at a door. ``protocol``: ``query`` is the older one, as botocore spoke it until 2023."""
    boto3 = clients.module("boto3")
    from botocore.config import Config
    from sqs_model import loader_of

    session = boto3.session.Session(aws_access_key_id=key, aws_secret_access_key=secret, region_name=REGION)
    if protocol == "query":
        loader_of(session)
    settings = {"retries": {"max_attempts": 1, "mode": "standard"}, "connect_timeout": 60, "read_timeout": 60} | config
    return session.client("sqs", endpoint_url=url, config=Config(**settings))


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
