"""The same script at moto's server and at ours: each difference is written down here, and in docs/gateways/sqs.md."""

import re
import sys

from botocore.exceptions import ClientError
from sqs_boto import connect
from support import clients

_DIGITS = re.compile(r"\d{9,}")
_URL = re.compile(r"http://[^/]+/\d{12}/")
_ACCOUNT = re.compile(r":\d{12}:")
SHAPES = {"MessageId", "ReceiptHandle", "TaskHandle", "SequenceNumber", "SenderId", "NextToken"}
"""Ids, which differ from call to call."""


def shape(value, name=""):
    """A result without what must differ: ids, times, addresses."""
    if isinstance(value, dict):
        return {key: shape(one, key) for key, one in value.items() if key not in ("ResponseMetadata", "HTTPHeaders")}
    if isinstance(value, list):
        return [shape(one) for one in value]
    if isinstance(value, str):
        if name in SHAPES:
            return "…"
        return _ACCOUNT.sub(":…:", _URL.sub("…/", _DIGITS.sub("…", value) if name.endswith("Timestamp") else value))
    return value


def script(sqs):
    """What is asked of both; gives a line for each call."""
    told = {}

    def ask(label, action, **options):
        try:
            result = shape(answer := getattr(sqs, action)(**options))
        except ClientError as error:
            result, answer = error.response["Error"]["Code"], {}
        told[label] = result
        return answer

    def take(label, **options):
        return ask(label, "receive_message", MaxNumberOfMessages=10, **options).get("Messages", [])

    text = {"DataType": "String", "StringValue": "v"}
    queue = ask("create", "create_queue", QueueName="q", Attributes={"VisibilityTimeout": "60"})["QueueUrl"]
    ask("create again", "create_queue", QueueName="q", Attributes={"VisibilityTimeout": "60"})
    ask("create other", "create_queue", QueueName="q", Attributes={"VisibilityTimeout": "61"})
    ask("create bad name", "create_queue", QueueName="a b")
    ask("create bad value", "create_queue", QueueName="v", Attributes={"MaximumMessageSize": "1"})
    ask("create fifo without suffix", "create_queue", QueueName="v", Attributes={"FifoQueue": "true"})
    ask("url", "get_queue_url", QueueName="q")
    ask("url of none", "get_queue_url", QueueName="none")
    ask("list", "list_queues", QueueNamePrefix="q")
    ask("list none", "list_queues", QueueNamePrefix="zzz")
    ask("attributes", "get_queue_attributes", QueueUrl=queue, AttributeNames=["All"])
    ask("attributes unknown", "get_queue_attributes", QueueUrl=queue, AttributeNames=["Nope"])
    ask("tag", "tag_queue", QueueUrl=queue, Tags={"a": "b"})
    ask("tags", "list_queue_tags", QueueUrl=queue)
    ask("untag", "untag_queue", QueueUrl=queue, TagKeys=["a"])
    ask("no tags", "list_queue_tags", QueueUrl=queue)
    ask("send", "send_message", QueueUrl=queue, MessageBody="m ä", MessageAttributes={"b": text, "a": text})
    ask("send too late", "send_message", QueueUrl=queue, MessageBody="m", DelaySeconds=1000)
    ask("send to none", "send_message", QueueUrl=queue + "none", MessageBody="m")
    (got,) = take("receive", QueueUrl=queue, MessageAttributeNames=["All"], AttributeNames=["All"])
    take("receive nothing", QueueUrl=queue)
    ask("counts", "get_queue_attributes", QueueUrl=queue, AttributeNames=["ApproximateNumberOfMessagesNotVisible"])
    handle = {"QueueUrl": queue, "ReceiptHandle": got["ReceiptHandle"]}
    ask("longer", "change_message_visibility", **handle, VisibilityTimeout=100)
    ask("too long", "change_message_visibility", **handle, VisibilityTimeout=43201)
    ask("visible", "change_message_visibility", **handle, VisibilityTimeout=0)
    (got,) = take("receive again", QueueUrl=queue, WaitTimeSeconds=5, AttributeNames=["ApproximateReceiveCount"])
    handle["ReceiptHandle"] = got["ReceiptHandle"]
    ask("delete", "delete_message", **handle)
    ask("delete again", "delete_message", **handle)
    ask("delete junk", "delete_message", QueueUrl=queue, ReceiptHandle="junk")
    ask("receive too many", "receive_message", QueueUrl=queue, MaxNumberOfMessages=11)
    ask("receive too long", "receive_message", QueueUrl=queue, WaitTimeSeconds=21)
    entries = [{"Id": f"e{n}", "MessageBody": f"{n}"} for n in range(3)]
    ask("batch", "send_message_batch", QueueUrl=queue, Entries=entries)
    ask("batch twice", "send_message_batch", QueueUrl=queue, Entries=[entries[0]] * 2)
    ask("batch of 11", "send_message_batch", QueueUrl=queue, Entries=[{**entries[0], "Id": f"{n}"} for n in range(11)])
    ask("batch empty", "send_message_batch", QueueUrl=queue, Entries=[])
    ask("batch bad id", "send_message_batch", QueueUrl=queue, Entries=[{"Id": "a b", "MessageBody": "m"}])
    got = take("receive three", QueueUrl=queue)
    gone = [{"Id": str(n), "ReceiptHandle": one["ReceiptHandle"]} for n, one in enumerate(got)]
    ask("delete batch", "delete_message_batch", QueueUrl=queue, Entries=gone)
    fifo = ask(
        "create fifo", "create_queue", QueueName="q.fifo",
        Attributes={"FifoQueue": "true", "ContentBasedDeduplication": "true"},
    )["QueueUrl"]  # fmt: skip
    ask("attributes fifo", "get_queue_attributes", QueueUrl=fifo, AttributeNames=["All"])
    ask("fifo without group", "send_message", QueueUrl=fifo, MessageBody="m")
    ask("fifo with delay", "send_message", QueueUrl=fifo, MessageBody="m", MessageGroupId="g", DelaySeconds=5)
    for body in ("one", "one", "two"):
        ask(f"fifo {body}", "send_message", QueueUrl=fifo, MessageBody=body, MessageGroupId="g")
    take("receive fifo", QueueUrl=fifo, AttributeNames=["All"])
    take("receive fifo next", QueueUrl=fifo)
    # At the end, for moto stores what it refuses.
    ask("send empty", "send_message", QueueUrl=queue, MessageBody="")
    ask("send bad attribute", "send_message", QueueUrl=queue, MessageBody="m", MessageAttributes={"ä": text})
    no_type = {"a": {"DataType": "Nope", "StringValue": "v"}}
    ask("send bad type", "send_message", QueueUrl=queue, MessageBody="m", MessageAttributes=no_type)
    ask("purge", "purge_queue", QueueUrl=queue)
    ask("delete queue", "delete_queue", QueueUrl=queue)
    ask("send to deleted", "send_message", QueueUrl=queue, MessageBody="m")
    return told


DIFFERENT = {
    "attributes": "moto's times have fractions of a second; it says that it encrypts at rest, and we do not",
    "attributes fifo": "the same",
    "fifo one": "moto gives no SequenceNumber",
    "fifo two": "the same",
    "receive fifo": "moto has no SequenceNumber; it gives two messages of a group at once, we one after the other",
    "send empty": "moto takes a message without a body, which SQS refuses",
}
"""Call → why ours differs from moto's."""


def test_the_same_script_at_moto(shared_node, tmp_path):
    """All answers to one script are those of moto's server, but for differences that are known and explained."""
    clients.module("moto")
    clients.module("flask_cors")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "{port}"]
    with clients.server(command, tmp_path / "moto.log") as port:
        theirs = connect(f"http://127.0.0.1:{port}")
        moto = script(theirs)
        theirs.close()
    client = connect(shared_node.url("sqs"))
    ours = script(client)
    client.close()
    different = {label: (one, ours[label]) for label, one in moto.items() if one != ours[label]}
    import pprint

    pprint.pprint(different, width=180)
    assert different.keys() == DIFFERENT.keys(), "\n".join(f"{label}: {one}" for label, one in different.items())
