"""boto3 in both protocols, at a real gateway process."""

import json
import threading
import time

import pytest
from botocore.exceptions import ClientError
from sqs_boto import KEY, REGION, connect
from support.nodes import eventually


def receive(sqs, queue, **options):
    """What there is, waiting for the first."""
    return sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=20, **options).get("Messages", [])


def code(call, **options):
    """The code of the error that a call ends with."""
    with pytest.raises(ClientError) as caught:
        call(**options)
    return caught.value.response["Error"]["Code"].removeprefix("AWS.SimpleQueueService.")


def arn(queue):
    """The ARN of a queue by its URL."""
    return f"arn:aws:sqs:{REGION}:000000000000:{queue.rpartition('/')[2]}"


def test_a_message_comes_as_it_was_sent(sqs, queue):
    """Text, attributes of every type and the trace header come back as they were, with the MD5s that boto3 compares."""
    attributes = {
        "number": {"DataType": "Number.int", "StringValue": "5"},
        "bytes": {"DataType": "Binary", "BinaryValue": bytes(range(256))},
        "x-own": {"DataType": "String.label", "StringValue": "ä <&> \r\n"},
        "plain": {"DataType": "String", "StringValue": "x" * 1000},
    }
    body = "Grüße <&> \t\r\n \U0001f600"
    trace = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-5759e988-bd862e3fe1be46a994272793"}}
    sent = sqs.send_message(
        QueueUrl=queue, MessageBody=body, MessageAttributes=attributes, MessageSystemAttributes=trace
    )  # fmt: skip
    (got,) = receive(sqs, queue, MessageAttributeNames=["All"], AttributeNames=["All"])
    assert (got["MessageId"], got["Body"], got["MD5OfBody"]) == (sent["MessageId"], body, sent["MD5OfMessageBody"])
    assert got["MessageAttributes"] == attributes
    assert got["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]
    system = got["Attributes"]
    assert system["AWSTraceHeader"] == trace["AWSTraceHeader"]["StringValue"]
    assert (system["SenderId"], system["ApproximateReceiveCount"]) == (KEY, "1")
    assert abs(int(system["SentTimestamp"]) / 1000 - time.time()) < 600
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=got["ReceiptHandle"])
    counts = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert [counts[f"ApproximateNumberOfMessages{kind}"] for kind in ("", "NotVisible", "Delayed")] == ["0", "0", "0"]


def test_attributes_are_chosen_by_name_and_prefix(sqs, queue):
    """A receiver gets those attributes only that it asks for."""
    one = {"DataType": "String", "StringValue": "v"}
    names = ("a", "b.c", "b.d")
    sqs.send_message(QueueUrl=queue, MessageBody="m", MessageAttributes=dict.fromkeys(names, one))
    for asked, given in ((["a"], {"a"}), (["b.*"], {"b.c", "b.d"}), ([".*"], set(names)), (["z"], set())):
        (got,) = receive(sqs, queue, MessageAttributeNames=asked, VisibilityTimeout=0)
        assert set(got.get("MessageAttributes", {})) == given
        assert "Attributes" not in got


def test_batches(sqs, queue):
    """Ten go in one request each way; what is wrong with one entry is said of that one, in its place."""
    entries = [{"Id": f"e{n}", "MessageBody": f"m{n}"} for n in range(9)]
    bad = {"Id": "bad", "MessageBody": "x", "MessageAttributes": {"a..b": {"DataType": "String", "StringValue": "v"}}}
    sent = sqs.send_message_batch(QueueUrl=queue, Entries=[*entries, bad])
    assert [one["Id"] for one in sent["Successful"]] == [f"e{n}" for n in range(9)]
    assert [(one["Id"], one["SenderFault"], one["Code"]) for one in sent["Failed"]] == [
        ("bad", True, "InvalidParameterValue")
    ]
    got = receive(sqs, queue, MaxNumberOfMessages=10)
    assert [one["Body"] for one in got] == [f"m{n}" for n in range(9)]
    changes = [
        {"Id": str(n), "ReceiptHandle": one["ReceiptHandle"], "VisibilityTimeout": 0} for n, one in enumerate(got)
    ]
    assert len(sqs.change_message_visibility_batch(QueueUrl=queue, Entries=changes)["Successful"]) == 9
    again = receive(sqs, queue, MaxNumberOfMessages=10, AttributeNames=["ApproximateReceiveCount"])
    assert {one["Attributes"]["ApproximateReceiveCount"] for one in again} == {"2"}
    gone = [{"Id": str(n), "ReceiptHandle": one["ReceiptHandle"]} for n, one in enumerate(again)]
    done = sqs.delete_message_batch(QueueUrl=queue, Entries=[*gone, {"Id": "junk", "ReceiptHandle": "junk"}])
    assert (len(done["Successful"]), [one["Code"] for one in done["Failed"]]) == (9, ["ReceiptHandleIsInvalid"])


def test_what_is_refused_has_amazons_code(sqs, queue):
    """Programs go by the codes of errors: these are Amazon's."""
    send, batch = sqs.send_message, sqs.send_message_batch
    one = {"Id": "a", "MessageBody": "m"}
    nowhere = queue + "-nowhere"
    assert code(send, QueueUrl=nowhere, MessageBody="m") == "NonExistentQueue"
    assert code(sqs.get_queue_url, QueueName="nowhere") == "NonExistentQueue"
    assert code(send, QueueUrl=queue, MessageBody="") == "MissingParameter"
    assert code(send, QueueUrl=queue, MessageBody="x" * 1048577) == "InvalidParameterValue"
    assert code(send, QueueUrl=queue, MessageBody="m", DelaySeconds=901) == "InvalidParameterValue"
    assert code(send, QueueUrl=queue, MessageBody="a\ufffe") == "InvalidMessageContents"
    assert code(batch, QueueUrl=queue, Entries=[one] * 2) == "BatchEntryIdsNotDistinct"
    assert code(batch, QueueUrl=queue, Entries=[{**one, "Id": str(n)} for n in range(11)]) == (
        "TooManyEntriesInBatchRequest"
    )
    big = [{"Id": str(n), "MessageBody": "x" * 600_000} for n in range(2)]
    assert code(batch, QueueUrl=queue, Entries=big) == "BatchRequestTooLong"
    assert code(batch, QueueUrl=queue, Entries=[{**one, "Id": "ä"}]) == "InvalidBatchEntryId"
    assert code(sqs.receive_message, QueueUrl=queue, MaxNumberOfMessages=11) == "InvalidParameterValue"
    assert code(sqs.delete_message, QueueUrl=queue, ReceiptHandle="x") == "ReceiptHandleIsInvalid"
    assert code(sqs.get_queue_attributes, QueueUrl=queue, AttributeNames=["No"]) == "InvalidAttributeName"
    assert code(sqs.set_queue_attributes, QueueUrl=queue, Attributes={"VisibilityTimeout": "x"}) == (
        "InvalidAttributeValue"
    )
    assert code(sqs.set_queue_attributes, QueueUrl=queue, Attributes={"Policy": "{}"}) == "InvalidAttributeValue"
    assert code(sqs.create_queue, QueueName="a.b") == "InvalidParameterValue"
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.get_queue_url(QueueName="nowhere")


def test_the_visibility_timeout(sqs, queue):
    """A message that is not deleted in time comes again; one whose time is extended does not."""
    sqs.send_message(QueueUrl=queue, MessageBody="m")
    (first,) = receive(sqs, queue, VisibilityTimeout=1)
    (second,) = receive(sqs, queue, AttributeNames=["ApproximateReceiveCount"], VisibilityTimeout=100)
    assert second["Attributes"]["ApproximateReceiveCount"] == "2"
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=first["ReceiptHandle"])  # of a lease that is over: changes nothing
    change = sqs.change_message_visibility
    change(QueueUrl=queue, ReceiptHandle=second["ReceiptHandle"], VisibilityTimeout=200)
    assert sqs.receive_message(QueueUrl=queue).get("Messages") is None
    change(QueueUrl=queue, ReceiptHandle=second["ReceiptHandle"], VisibilityTimeout=0)
    (third,) = receive(sqs, queue)
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=third["ReceiptHandle"])
    gone = {"QueueUrl": queue, "ReceiptHandle": third["ReceiptHandle"], "VisibilityTimeout": 5}
    assert code(change, **gone) == "MessageNotInflight"


def test_delays(sqs, queue):
    """A delayed message is counted as delayed and comes when its time is up: its own delay, or the queue's."""
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"DelaySeconds": "900"})
    sqs.send_message(QueueUrl=queue, MessageBody="late")
    sqs.send_message(QueueUrl=queue, MessageBody="soon", DelaySeconds=3)
    counts = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["ApproximateNumberOfMessagesDelayed"])
    assert counts["Attributes"] == {"ApproximateNumberOfMessagesDelayed": "2"}
    assert [one["Body"] for one in receive(sqs, queue)] == ["soon"]


def test_a_long_poll_is_woken(sqs, queue, shared_node):
    """A receiver that waits gets a message as soon as it is sent."""
    got = []

    def wait():
        other = connect(shared_node.url("sqs"))
        while not got:  # a request that ends after 20 s on a busy machine is asked again
            got.extend(receive(other, queue))
        other.close()

    thread = threading.Thread(target=wait)
    thread.start()
    sqs.send_message(QueueUrl=queue, MessageBody="m")
    thread.join(60)
    assert [one["Body"] for one in got] == ["m"]


def test_large_and_foreign_bodies(sqs, queue, shared_node):
    """The largest body comes back whole; bytes that are no text come in base64, and a body can be sent that way."""
    large = "ä" * (1024 * 512)
    sqs.send_message(QueueUrl=queue, MessageBody=large)
    assert [one["Body"] for one in receive(sqs, queue)] == [large]
    with shared_node.place.opened() as node:
        node.put(b"\xff\0", channel=queue.rpartition("/")[2], headers={"colour": "red", "x-other": "hidden"})
        (got,) = receive(sqs, queue, MessageAttributeNames=["All"])
        assert got["Body"] == "/wA="
        base64 = {"StringValue": "base64", "DataType": "String"}
        assert got["MessageAttributes"] == {
            "dropr-encoding": base64, "colour": {"StringValue": "red", "DataType": "String"}
        }  # fmt: skip
        sqs.send_message(QueueUrl=queue, MessageBody="/wA=", MessageAttributes={"dropr-encoding": base64})
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=got["ReceiptHandle"])
        bodies = []
        for received in node.receive(queue.rpartition("/")[2], timeout=60):
            bodies.append(received.body)
            break
        assert bodies == [b"\xff\0"]


def test_queues_are_kept_and_listed(sqs, queue):
    """A queue has the attributes and tags that it was given; the same again is the same queue, others are refused."""
    name = queue.rpartition("/")[2]
    tagged = sqs.create_queue(QueueName=name[:70] + "-tags", Attributes={"VisibilityTimeout": "7"}, tags={"a": "1"})
    url = tagged["QueueUrl"]
    assert sqs.create_queue(QueueName=name[:70] + "-tags", Attributes={"VisibilityTimeout": "7"})["QueueUrl"] == url
    assert code(sqs.create_queue, QueueName=name[:70] + "-tags", Attributes={"VisibilityTimeout": "8"}) in (
        "QueueAlreadyExists", "QueueNameExists",
    )  # fmt: skip
    sqs.tag_queue(QueueUrl=url, Tags={"b": "2"})
    sqs.untag_queue(QueueUrl=url, TagKeys=["a"])
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"b": "2"}
    assert sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"] == {
        "VisibilityTimeout": "7"
    }
    pages = sqs.get_paginator("list_queues").paginate(QueueNamePrefix=name[:70], PaginationConfig={"PageSize": 1})
    assert [one for page in pages for one in page["QueueUrls"]] == sorted([queue, url])
    assert sqs.get_queue_url(QueueName="given")["QueueUrl"].endswith("/000000000000/given")


def test_purge_and_delete(sqs, queue):
    """Purging removes what waits, is delayed and is in flight; a deleted queue is gone."""
    sqs.send_message(QueueUrl=queue, MessageBody="in flight")
    (held,) = receive(sqs, queue)
    sqs.send_message(QueueUrl=queue, MessageBody="waits")
    sqs.send_message(QueueUrl=queue, MessageBody="later", DelaySeconds=900)
    sqs.purge_queue(QueueUrl=queue)
    gone = {"QueueUrl": queue, "ReceiptHandle": held["ReceiptHandle"], "VisibilityTimeout": 0}
    assert code(sqs.change_message_visibility, **gone) == "MessageNotInflight"
    counts = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert [counts[f"ApproximateNumberOfMessages{kind}"] for kind in ("", "NotVisible", "Delayed")] == ["0", "0", "0"]
    sqs.delete_queue(QueueUrl=queue)
    assert code(sqs.send_message, QueueUrl=queue, MessageBody="m") == "NonExistentQueue"
    assert queue not in sqs.list_queues(QueueNamePrefix=queue.rpartition("/")[2]).get("QueueUrls", [])


def test_dead_letters_and_their_way_back(sqs, queue):
    """A message received too often moves to the dead-letter queue with its id, and back by a move task."""
    dead = sqs.create_queue(QueueName=queue.rpartition("/")[2][:70] + "-dead")["QueueUrl"]
    policy = {"RedrivePolicy": json.dumps({"deadLetterTargetArn": arn(dead), "maxReceiveCount": "2"})}
    sqs.set_queue_attributes(QueueUrl=queue, Attributes=policy)
    assert sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == [queue]
    sent = sqs.send_message(QueueUrl=queue, MessageBody="poison")
    for _ in range(2):
        (was,) = receive(sqs, queue, VisibilityTimeout=0, AttributeNames=["All"])
    assert sqs.receive_message(QueueUrl=queue).get("Messages") is None
    (got,) = receive(sqs, dead, VisibilityTimeout=0, AttributeNames=["All"])
    assert (got["MessageId"], got["Body"]) == (sent["MessageId"], "poison")
    assert got["Attributes"]["DeadLetterQueueSourceArn"] == arn(queue)
    assert got["Attributes"]["ApproximateReceiveCount"] == "3"
    assert got["Attributes"]["SentTimestamp"] == was["Attributes"]["SentTimestamp"]
    sqs.start_message_move_task(SourceArn=arn(dead))

    def moved():
        (task,) = sqs.list_message_move_tasks(SourceArn=arn(dead))["Results"]
        return task if task["Status"] == "COMPLETED" else None

    assert eventually(moved, what="the task is done")["ApproximateNumberOfMessagesMoved"] == 1
    (back,) = receive(sqs, queue, AttributeNames=["All"])
    assert back["MessageId"] == sent["MessageId"]
    assert back["Attributes"]["SentTimestamp"] == was["Attributes"]["SentTimestamp"]
    assert "DeadLetterQueueSourceArn" not in back["Attributes"]
    wrong = {"RedrivePolicy": json.dumps({"deadLetterTargetArn": arn(queue) + "-none", "maxReceiveCount": 2})}
    assert code(sqs.set_queue_attributes, QueueUrl=queue, Attributes=wrong) == "InvalidParameterValue"


@pytest.fixture
def fifo(request, sqs, queue):
    """A FIFO queue of the test's own."""
    attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    return sqs.create_queue(QueueName=queue.rpartition("/")[2][:60] + ".fifo", Attributes=attributes)["QueueUrl"]


def test_groups_are_in_order(sqs, fifo):
    """Of one group one message is out at a time, in the order of sending, whoever receives; groups do not wait for
    each other.
    """
    for number in range(3):
        for group in "ab":
            sqs.send_message(QueueUrl=fifo, MessageBody=f"{group}{number}", MessageGroupId=group)
    seen, last = [], ""
    while len(seen) < 6:
        got = receive(sqs, fifo, MaxNumberOfMessages=10, AttributeNames=["All"])
        groups = [one["Attributes"]["MessageGroupId"] for one in got]
        assert len(set(groups)) == len(groups)
        for one in got:
            assert last < one["Attributes"]["SequenceNumber"] or one["Attributes"]["MessageGroupId"] != seen[-1][0]
            last = one["Attributes"]["SequenceNumber"]
            seen.append(one["Body"])
            sqs.delete_message(QueueUrl=fifo, ReceiptHandle=one["ReceiptHandle"])
    assert [one for one in seen if one[0] == "a"] == ["a0", "a1", "a2"]
    assert [one for one in seen if one[0] == "b"] == ["b0", "b1", "b2"]


def test_a_group_waits_for_its_first(sqs, fifo):
    """While a message is in flight nobody gets the next one of its group; made visible again, it comes first again."""
    for body in ("first", "second"):
        sqs.send_message(QueueUrl=fifo, MessageBody=body, MessageGroupId="g")
    (held,) = receive(sqs, fifo)
    assert sqs.receive_message(QueueUrl=fifo).get("Messages") is None
    sqs.change_message_visibility(QueueUrl=fifo, ReceiptHandle=held["ReceiptHandle"], VisibilityTimeout=0)
    (again,) = receive(sqs, fifo)
    assert (held["Body"], again["Body"]) == ("first", "first")


def test_duplicates_are_taken_once(sqs, fifo):
    """The same deduplication id, or the same content without one, is one message, also after it was deleted."""
    send = {"QueueUrl": fifo, "MessageGroupId": "g"}
    first = sqs.send_message(**send, MessageBody="m")
    assert sqs.send_message(**send, MessageBody="m")["MessageId"] == first["MessageId"]
    entries = [
        {"Id": str(n), "MessageBody": f"{n}", "MessageGroupId": "g", "MessageDeduplicationId": "d"} for n in (1, 2)
    ]
    sent = sqs.send_message_batch(QueueUrl=fifo, Entries=entries)["Successful"]
    assert sent[0]["MessageId"] == sent[1]["MessageId"]
    for body in ("m", "1"):
        (got,) = receive(sqs, fifo)
        assert got["Body"] == body
        sqs.delete_message(QueueUrl=fifo, ReceiptHandle=got["ReceiptHandle"])
    assert sqs.send_message(**send, MessageBody="m")["MessageId"] == first["MessageId"]
    assert sqs.receive_message(QueueUrl=fifo).get("Messages") is None


def test_what_a_fifo_queue_asks_for(sqs, fifo, queue):
    """A FIFO queue wants a group, no delay of a single message, and its name and attribute agree."""
    assert code(sqs.send_message, QueueUrl=fifo, MessageBody="m") == "MissingParameter"
    late = {"QueueUrl": fifo, "MessageBody": "m", "MessageGroupId": "g", "DelaySeconds": 5}
    assert code(sqs.send_message, **late) == "InvalidParameterValue"
    assert code(sqs.create_queue, QueueName="x.fifo") == "InvalidParameterValue"
    assert code(sqs.create_queue, QueueName="x", Attributes={"FifoQueue": "true"}) == "InvalidParameterValue"
    sqs.set_queue_attributes(QueueUrl=fifo, Attributes={"ContentBasedDeduplication": "false"})
    assert code(sqs.send_message, QueueUrl=fifo, MessageBody="m", MessageGroupId="g") == "InvalidParameterValue"


def test_a_receive_is_asked_again(sqs, fifo):
    """A lost answer to a receive is had again under its attempt id, with the same receipt handles."""
    sqs.send_message(QueueUrl=fifo, MessageBody="m", MessageGroupId="g")
    (one,) = receive(sqs, fifo, ReceiveRequestAttemptId="try-1")
    (same,) = receive(sqs, fifo, ReceiveRequestAttemptId="try-1")
    assert one["ReceiptHandle"] == same["ReceiptHandle"]


def test_who_may_not_ask(shared_node):
    """A wrong secret, an unknown key and an old clock are refused with Amazon's codes, and nothing is done."""
    url = shared_node.url("sqs")
    for wrong, expected in (({"secret": "no"}, "SignatureDoesNotMatch"), ({"key": "NOBODY"}, "InvalidClientTokenId")):
        client = connect(url, **wrong)
        assert code(client.create_queue, QueueName="never") == expected
        client.close()
    from datetime import UTC, datetime, timedelta
    from unittest import mock

    client = connect(url)
    for minutes in (-16, 16):
        then = (datetime.now(UTC) + timedelta(minutes=minutes)).replace(tzinfo=None)
        with mock.patch("botocore.auth.get_current_datetime", return_value=then):
            assert code(client.create_queue, QueueName="never") == "SignatureDoesNotMatch"
    assert code(client.get_queue_url, QueueName="never") == "NonExistentQueue"
    client.close()


def test_many_threads(shared_node):
    """Eight threads send and receive at once: each message is handed out once, and none is missing."""
    url = shared_node.url("sqs")
    client = connect(url, max_pool_connections=8)
    queue = client.create_queue(QueueName="threads")["QueueUrl"]
    total, seen, guard = 160, [], threading.Lock()

    def work(first):
        for number in range(first, total, 8):
            client.send_message(QueueUrl=queue, MessageBody=str(number))
        while True:
            got = client.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
            with guard:
                seen.extend(one["Body"] for one in got)
                if len(seen) >= total:
                    break
            for one in got:
                client.delete_message(QueueUrl=queue, ReceiptHandle=one["ReceiptHandle"])

    threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(110)
    client.close()
    assert sorted(seen, key=int) == [str(number) for number in range(total)]
