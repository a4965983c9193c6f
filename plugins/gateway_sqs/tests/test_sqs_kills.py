"""The gateway is killed or restarted in the middle, and messages go to another node."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from sqs_boto import KEY, REGION, SECRET, connect
from support import clients
from support.gateways import Doors, listening, open_doors
from support.nodes import eventually

OPEN = {"sqs": {"credentials": {KEY: SECRET}}}
FIFO = {"FifoQueue": "true", "VisibilityTimeout": "1200"}


class Steady:
    """A client that asks again, wherever the door is by now, until it has its answer: as programs do."""

    def __init__(self, doors):
        self.doors, self._url, self._client = doors, "", None

    def __getattr__(self, action):
        def call(**options):
            def once():
                url = self.doors.url("sqs")
                if url != self._url:
                    self._url, self._client = url, connect(url)
                try:
                    return getattr(self._client, action)(**options)
                except (BotoCoreError, ClientError) as error:
                    if isinstance(error, ClientError) and error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
                        raise
                    return None

            return eventually(once, what=action)

        return call


def kill(doors):
    """SIGKILL and a new start."""
    doors.kill()
    doors.start()


@pytest.mark.e2e
def test_nothing_is_lost_or_doubled_by_kills(road):
    """Sends and deletes go on while the gateway is killed again and again: each message is processed once."""
    doors = open_doors(road, "shop", "sqs", options=OPEN)
    sender, receiver = Steady(doors), Steady(doors)
    queue = sender.create_queue(QueueName="q.fifo", Attributes=FIFO)["QueueUrl"]
    total, done, answers = 120, [], []

    def send():
        for number in range(total):
            answers.append(
                sender.send_message(
                    QueueUrl=queue, MessageBody=str(number), MessageGroupId=str(number % 7),
                    MessageDeduplicationId=f"d{number}",
                )
            )  # fmt: skip

    def take():
        while len(done) < total:
            got = receiver.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            for one in got.get("Messages", []):
                receiver.delete_message(QueueUrl=queue, ReceiptHandle=one["ReceiptHandle"])
                done.append(one["Body"])

    threads = [threading.Thread(target=send), threading.Thread(target=take)]
    for thread in threads:
        thread.start()
    for share in (20, 60, 100):
        eventually(lambda share=share: len(answers) >= share, what=f"{share} are sent")
        kill(doors)
    for thread in threads:
        thread.join(100)
    assert sorted(done, key=int) == [str(number) for number in range(total)]
    assert len({one["MessageId"] for one in answers}) == total
    assert "Messages" not in receiver.receive_message(QueueUrl=queue)


@pytest.mark.e2e
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_restart_keeps_queues_and_receipt_handles(road, how):
    """After a restart a queue is set as it was, and a delete by a receipt handle from before removes the message."""
    doors = open_doors(road, "shop", "sqs", options=OPEN)
    client = connect(doors.url("sqs"))
    queue = client.create_queue(QueueName="q", Attributes={"VisibilityTimeout": "77"}, tags={"a": "b"})["QueueUrl"]
    for body in ("one", "two"):
        client.send_message(QueueUrl=queue, MessageBody=body)
    (one,) = client.receive_message(QueueUrl=queue, WaitTimeSeconds=20)["Messages"]
    client.close()
    if how == "stopped":
        doors.process.signal(signal.SIGTERM)
        assert doors.process.wait() == 0
    kill(doors)
    client = connect(doors.url("sqs"))
    client.delete_message(QueueUrl=queue, ReceiptHandle=one["ReceiptHandle"])
    found = client.get_queue_attributes(QueueUrl=queue, AttributeNames=["VisibilityTimeout"])["Attributes"]
    assert found == {"VisibilityTimeout": "77"}
    assert client.list_queue_tags(QueueUrl=queue)["Tags"] == {"a": "b"}
    (two,) = client.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=20)["Messages"]
    client.delete_message(QueueUrl=queue, ReceiptHandle=two["ReceiptHandle"])
    assert (one["Body"], two["Body"]) == ("one", "two")
    assert "Messages" not in client.receive_message(QueueUrl=queue)
    client.close()


@pytest.mark.e2e
def test_what_is_sent_here_is_received_there(road):
    """A queue whose channel has a route: sent with the line down, received on the other node with its attributes."""
    shop, warehouse = road.build(
        "shop", "warehouse",
        shop={"gateways": listening("sqs", **OPEN), "channels": {"orders": {"to": "warehouse"}}},
        warehouse={"gateways": listening("sqs", **OPEN)},
    )  # fmt: skip
    here = connect(Doors(road, shop).start().url("sqs"))
    queue = here.get_queue_url(QueueName="orders")["QueueUrl"]
    attributes = {"n": {"DataType": "Number", "StringValue": "7"}, "b": {"DataType": "Binary", "BinaryValue": b"\0"}}
    sent = here.send_message(QueueUrl=queue, MessageBody="hello", MessageAttributes=attributes, DelaySeconds=1)
    here.close()
    there = connect(Doors(road, warehouse).start().url("sqs"))
    warehouse.run("server")
    shop.run("daemon")
    queue = there.create_queue(QueueName="orders")["QueueUrl"]

    def arrived():
        return there.receive_message(
            QueueUrl=queue, WaitTimeSeconds=20, MessageAttributeNames=["All"], AttributeNames=["All"]
        ).get("Messages")

    (got,) = eventually(arrived, what="the message is there")
    assert (got["MessageId"], got["Body"]) == (sent["MessageId"], "hello")
    assert got["MessageAttributes"] == attributes
    assert got["Attributes"]["SenderId"] == KEY
    there.close()


@pytest.mark.e2e
def test_the_aws_command_line(shared_node, tmp_path):
    """Amazon's own command line, as a process: a queue, a message there and back, and a wrong secret."""
    clients.module("awscli")
    aws = Path(sys.executable).with_name("aws")
    env = {
        **os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip

    def run(*words, good=True, **more):
        command = [aws, "--endpoint-url", shared_node.url("sqs"), "--output", "text", "sqs", *words]
        ended = subprocess.run(command, env={**env, **more}, capture_output=True, text=True, timeout=250, check=False)
        assert (ended.returncode == 0) is good, ended.stderr
        return ended.stdout.strip() if good else ended.stderr

    queue = run("create-queue", "--queue-name", "cli")
    run("send-message", "--queue-url", queue, "--message-body", "hello")
    got = run("receive-message", "--queue-url", queue, "--query", "Messages[0].[Body,ReceiptHandle]")
    body, receipt = got.split()
    assert body == "hello"
    run("delete-message", "--queue-url", queue, "--receipt-handle", receipt)
    assert "SignatureDoesNotMatch" in run("list-queues", good=False, AWS_SECRET_ACCESS_KEY="no")
