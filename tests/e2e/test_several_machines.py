"""One node on two machines: processes with data directories of their own, and nothing shared but a database."""

import json
import threading

import pytest
from support.gateways import Doors, listening
from support.nodes import Road, eventually, key_of, take_all

pytest.importorskip("psycopg")
pytestmark = pytest.mark.e2e


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    road = Road(tmp_path)
    yield road
    road.close()


def waits(place):
    """For whom the daemon of a machine waits; empty: it works; None: it says nothing (yet)."""
    try:
        return json.loads((place.directory / "data" / "run" / "daemon.json").read_text()).get("waits_for", "")
    except (OSError, ValueError):
        return None


def test_machines_of_a_node_take_over_from_each_other(road, own_postgres):
    """What comes in at one machine is received on the other; of two daemons one works, the other takes over when it is
    killed, and both live through a restart of the database. Lost 0, doubled 0, in order.
    """
    shop, one, two = road.build("shop", "one", "two")
    key = key_of("shop", "one")
    for place in (one, two):
        place.config.update(node="ware", peers={"shop": {"key": key, "url": road.urls["shop"]}})
        place.write(storage={"use": "postgres", "url": own_postgres.url()})
    shop.config["peers"] = {"ware": {"key": key, "url": road.urls["one"]}}
    shop.write()
    for role in ("server", "daemon"):
        shop.run(role)
        one.run(role, ready=True)
    two.run("daemon", ready=False)
    eventually(lambda: waits(two), what="the second daemon waits")
    assert "process" in waits(two)
    with shop.opened() as here, one.opened() as first, two.opened() as second:
        assert first.runtime.node_id == second.runtime.node_id
        got = []
        reader = threading.Thread(
            target=lambda: got.extend(bytes(one.body) for one in take_all(second, "in", at_least=20))
        )
        reader.start()
        for number in range(20):
            here.send(b"%d" % number, to="ware", channel="in", receipt=True)
        reader.join(60)
        assert got == [b"%d" % number for number in range(20)]
        sent = [second.send(b"%d" % number, to="shop", channel="out", receipt=True) for number in range(10)]
        next(process for process in one.processes if process.role == "daemon").kill()
        eventually(lambda: waits(two) == "", what="the second daemon took over")
        sent += [first.send(b"%d" % number, to="shop", channel="out", receipt=True) for number in range(10, 20)]
        own_postgres.restart()
        sent += [second.send(b"%d" % number, to="shop", channel="out", receipt=True) for number in range(20, 30)]
        assert [bytes(one.body) for one in take_all(here, "out", at_least=30)] == [b"%d" % n for n in range(30)]
        for message in sent:
            message.wait(timeout=60)
        assert not take_all(here, "out")
        assert not take_all(first, "in")


def test_machines_of_a_node_see_the_same_sqs_queues(road, own_postgres, monkeypatch):
    """What is created, set, tagged or deleted at the SQS door of one machine is so at the other; what is sent to one
    is received from the other.
    """
    pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "anybody")
    doors = []
    for place in road.build("one", "two"):
        place.config.update(node="ware", gateways=listening("sqs"))
        place.write(storage={"use": "postgres", "url": own_postgres.url()})
        doors.append(Doors(road, place).start())
    here, there = (sqs_client(door.url("sqs")) for door in doors)
    url = here.create_queue(QueueName="orders", Attributes={"VisibilityTimeout": "77"})["QueueUrl"]
    assert there.get_queue_url(QueueName="orders")["QueueUrl"].endswith("/orders")
    there.tag_queue(QueueUrl=url, Tags={"team": "blue"})

    def told(client):
        """What the door says of the queue: it may believe for some seconds what it has read."""
        got = client.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
        return got | client.list_queue_tags(QueueUrl=url).get("Tags", {})

    same = {"VisibilityTimeout": "77", "team": "blue"}
    eventually(lambda: told(here) == told(there) == same, what="both doors say the same")
    sent = here.send_message(QueueUrl=url, MessageBody="a book")["MessageId"]
    (got,) = there.receive_message(QueueUrl=url, WaitTimeSeconds=20)["Messages"]
    assert (got["MessageId"], got["Body"]) == (sent, "a book")
    there.delete_message(QueueUrl=url, ReceiptHandle=got["ReceiptHandle"])
    here.delete_queue(QueueUrl=url)
    eventually(lambda: "QueueUrls" not in there.list_queues(), what="it is gone at both")
    with pytest.raises(there.exceptions.QueueDoesNotExist):
        there.send_message(QueueUrl=url, MessageBody="too late")


def sqs_client(url):
    """boto3 at a door that wants no key."""
    import boto3
    from botocore.config import Config

    retries = Config(retries={"total_max_attempts": 1}, connect_timeout=30, read_timeout=90)
    return boto3.client("sqs", endpoint_url=url, region_name="us-east-1", config=retries)
