"""Both protocols against botocore's own serializer and parser."""

import hashlib
from typing import Any
from urllib.parse import urlencode

import pytest
from dropr_gateway_sqs import answers, attributes, requests
from dropr_gateway_sqs.failures import SqsError
from dropr_gateway_sqs.names import check_new_name, name_of_arn, name_of_url
from hypothesis import given
from hypothesis import strategies as st
from sqs_model import parsed, serialized

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20).filter(
    attributes.is_text
)
NAME = st.from_regex(r"[A-Za-z0-9_-]{1,10}", fullmatch=True)
ATTRIBUTES = st.dictionaries(
    NAME,
    st.one_of(
        st.builds(lambda v: {"DataType": "String", "StringValue": v}, TEXT),
        st.builds(lambda v: {"DataType": "Number.int", "StringValue": str(v)}, st.integers()),
        st.builds(lambda v: {"DataType": "Binary", "BinaryValue": v}, st.binary(min_size=1, max_size=20)),
    ),
    min_size=1,
    max_size=4,
)
ENTRY = st.fixed_dictionaries(
    {"MessageBody": TEXT},
    optional={"DelaySeconds": st.integers(0, 900), "MessageAttributes": ATTRIBUTES, "MessageGroupId": NAME},
)
CALLS = st.one_of(
    st.tuples(st.just("SendMessage"), ENTRY.map(lambda one: {"QueueUrl": "http://x/0/q", **one})),
    st.tuples(
        st.just("SendMessageBatch"),
        st.lists(ENTRY, min_size=1, max_size=10).map(
            lambda many: {"QueueUrl": "q", "Entries": [{"Id": f"e{n}", **one} for n, one in enumerate(many)]}
        ),
    ),
    st.tuples(
        st.just("ReceiveMessage"),
        st.fixed_dictionaries(
            {"QueueUrl": NAME},
            optional={
                "MaxNumberOfMessages": st.integers(1, 10),
                "AttributeNames": st.lists(NAME, min_size=1),
                "MessageSystemAttributeNames": st.lists(NAME, min_size=1),
                "MessageAttributeNames": st.lists(NAME, min_size=1),
            },
        ),
    ),
    st.tuples(
        st.just("CreateQueue"),
        st.fixed_dictionaries(
            {"QueueName": NAME},
            optional={
                "Attributes": st.dictionaries(NAME, TEXT, min_size=1),
                "tags": st.dictionaries(TEXT, TEXT, min_size=1),
            },
        ),
    ),
    st.tuples(
        st.just("TagQueue"),
        st.fixed_dictionaries({"QueueUrl": NAME, "Tags": st.dictionaries(TEXT, TEXT, min_size=1)}),
    ),
    st.tuples(st.just("UntagQueue"), st.fixed_dictionaries({"QueueUrl": NAME, "TagKeys": st.lists(TEXT, min_size=1)})),
    st.tuples(
        st.just("ChangeMessageVisibilityBatch"),
        st.just({"QueueUrl": "q", "Entries": [{"Id": "a", "ReceiptHandle": "h", "VisibilityTimeout": 3}]}),
    ),
    st.tuples(
        st.just("DeleteMessageBatch"),
        st.just({"QueueUrl": "q", "Entries": [{"Id": "a", "ReceiptHandle": "h"}, {"Id": "b", "ReceiptHandle": "i"}]}),
    ),
)


def as_text(value: Any) -> Any:
    """Numbers as the older protocol has them."""
    if isinstance(value, dict):
        return {name: as_text(one) for name, one in value.items()}
    if isinstance(value, list):
        return [as_text(one) for one in value]
    return str(value) if isinstance(value, int) else value


@given(CALLS)
def test_both_protocols_say_the_same(call: tuple[str, dict[str, Any]]) -> None:
    """What botocore writes in the one protocol and in the other is read as the same request."""
    action, parameters = call
    one = serialized("json", action, parameters)
    newer = requests.read_json(one["headers"]["X-Amz-Target"], one["body"])
    form = urlencode(serialized("query", action, parameters)["body"]).encode()
    older = requests.read_form(b"", form, "/")
    assert (newer.action, older.action) == (action, action)
    assert as_text(newer.parameters) == {key: one for key, one in older.parameters.items() if key != "Version"}


MESSAGE = st.fixed_dictionaries(
    {"MessageId": NAME, "ReceiptHandle": NAME, "MD5OfBody": NAME, "Body": TEXT | st.just("a\rb\n\t <&>\"'")},
    optional={
        "Attributes": st.dictionaries(st.sampled_from(["SenderId", "SentTimestamp"]), TEXT, min_size=1),
        "MessageAttributes": ATTRIBUTES,
    },
)
RESULTS = st.one_of(
    st.tuples(st.just("ReceiveMessage"), st.fixed_dictionaries({"Messages": st.lists(MESSAGE, min_size=1)})),
    st.tuples(
        st.just("ListQueues"), st.fixed_dictionaries({"QueueUrls": st.lists(TEXT, min_size=1), "NextToken": TEXT})
    ),
    st.tuples(st.just("ListDeadLetterSourceQueues"), st.fixed_dictionaries({"queueUrls": st.lists(TEXT, min_size=1)})),
    st.tuples(st.just("ListQueueTags"), st.fixed_dictionaries({"Tags": st.dictionaries(TEXT, TEXT, min_size=1)})),
    st.tuples(st.just("GetQueueUrl"), st.fixed_dictionaries({"QueueUrl": TEXT})),
    st.tuples(
        st.just("ListMessageMoveTasks"),
        st.just({"Results": [{"TaskHandle": "t", "Status": "RUNNING", "StartedTimestamp": 5}]}),
    ),
    st.tuples(
        st.sampled_from(["SendMessageBatch", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"]),
        st.lists(NAME, min_size=1).map(
            lambda ids: {
                "Successful": [{"Id": one} for one in ids],
                "Failed": [{"Id": "x", "SenderFault": True, "Code": "InternalError", "Message": "<no>"}],
            }
        ),
    ),
)


def _encoded(result: Any) -> Any:
    """Bytes in base64, as our results have them."""
    import base64

    if isinstance(result, dict):
        return {name: _encoded(one) for name, one in result.items()}
    if isinstance(result, list):
        return [_encoded(one) for one in result]
    return base64.b64encode(result).decode() if isinstance(result, bytes) else result


@given(RESULTS, st.sampled_from(["json", "query"]))
def test_a_result_is_read_by_botocore(case: tuple[str, dict[str, Any]], protocol: Any) -> None:
    """What the gateway answers in either protocol is read by botocore as what was meant, whatever characters it has."""
    action, result = case
    answer = answers.success(protocol, action, _encoded(result), "r-1")
    assert parsed(protocol, action, answer.status, answer.headers, answer.body) == result


@pytest.mark.parametrize("protocol", ["json", "query"])
def test_an_error_is_read_by_botocore(protocol: Any) -> None:
    """An error has the code by which programs know it in both protocols, and says whose fault it is."""
    answer = answers.failure(protocol, SqsError("QueueDoesNotExist", "no <such> queue"), "r-1")
    error = parsed(protocol, "GetQueueUrl", answer.status, answer.headers, answer.body)["Error"]
    assert error["Message"] == "no <such> queue"
    if protocol == "query":
        assert (error["Code"], error["Type"]) == ("AWS.SimpleQueueService.NonExistentQueue", "Sender")
    else:  # the newer protocol has both codes, and clients of today go by the older one
        assert error["Code"] in ("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue")
        assert (b"x-amzn-query-error", b"AWS.SimpleQueueService.NonExistentQueue;Sender") in answer.headers


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_garbage_is_refused_in_words(target: bytes, body: bytes) -> None:
    """Whatever bytes come, the answer is a request or an SqsError and nothing else."""
    for read in (
        lambda: requests.read_json("AmazonSQS." + target.decode("latin-1"), body),
        lambda: requests.read_form(target, body, "/a/b"),
    ):
        try:
            assert read().action is not None
        except SqsError:
            pass


@given(st.recursive(TEXT | st.integers() | st.none(), lambda inner: st.dictionaries(NAME, inner) | st.lists(inner)))
def test_a_parameter_of_a_wrong_shape_is_refused_in_words(value: Any) -> None:
    """Whatever stands where a parameter should, its reader answers with a value or an SqsError."""
    parameters = {"p": value, "Entries": value}
    for read in (
        lambda: requests.text(parameters, "p"),
        lambda: requests.number(parameters, "p", 0, 5),
        lambda: requests.texts(parameters, "p"),
        lambda: requests.text_map(parameters, "p"),
        lambda: requests.entries(parameters),
        lambda: attributes.read(value),
        lambda: attributes.read({"a": value}),
    ):
        try:
            read()
        except SqsError:
            pass


def test_a_deep_form_is_refused() -> None:
    """A form cannot make the reader go deep, nor name the same thing as a value and as a list."""
    for form in (
        b"Action=A&" + b"a." * 5000 + b"b=1",
        b"Action=A&a=1&a.b=2",
        b"Action=A&a.b=2&a=1",
        b"Action=A&" * 3000,
    ):
        with pytest.raises(SqsError):
            requests.read_form(b"", form, "/")


@given(ATTRIBUTES)
def test_the_md5_of_attributes_is_that_of_its_description(given_attributes: dict[str, Any]) -> None:
    """Amazon's MD5 over attributes follows the algorithm of its Developer Guide, written down here a second time."""
    read = attributes.read(_encoded(given_attributes))
    whole = hashlib.md5(usedforsecurity=False)
    for name in sorted(given_attributes):
        value = given_attributes[name]
        data = value.get("BinaryValue") or value["StringValue"].encode()
        for part in (name.encode(), value["DataType"].encode()):
            whole.update(len(part).to_bytes(4, "big") + part)
        whole.update((b"\x02" if "BinaryValue" in value else b"\x01") + len(data).to_bytes(4, "big") + data)
    assert attributes.digest(read) == whole.hexdigest()


def test_the_md5_of_attributes_is_that_of_other_servers() -> None:
    """Two digests that the test suites of moto and ElasticMQ hold."""
    stamp = {"timestamp": {"DataType": "Number.java.lang.Long", "StringValue": "1493147359900"}}
    assert attributes.digest(attributes.read(stamp)) == "2e2e4876d8e0bd6b8c2c8f556831c349"
    two = {
        "attribute1": {"DataType": "String", "StringValue": "s"},
    }
    assert len(attributes.digest(attributes.read(two))) == 32


@pytest.mark.parametrize("name", ["a.b", "AWS.x", "amazon.x", ".a", "a.", "a..b", "", "ä", "a b", "x" * 257])
def test_names_of_attributes(name: str) -> None:
    """An attribute's name keeps Amazon's rules."""
    good = name == "a.b"
    try:
        attributes.read({name: {"DataType": "String", "StringValue": "v"}})
    except SqsError as error:
        assert not good and error.code == "InvalidParameterValue"
    else:
        assert good


@pytest.mark.parametrize(
    ("name", "good"), [("a", True), ("a.fifo", True), ("x" * 80, True), ("x" * 81, False), ("a.b", False), ("", False),
                       ("x" * 76 + ".fifo", False), ("ä", False), ("a/b", False), (".fifo", False)],
)  # fmt: skip
def test_names_of_queues(name: str, good: bool) -> None:
    """A queue's name keeps Amazon's rules."""
    if good:
        assert check_new_name(name) == name
    else:
        with pytest.raises(SqsError):
            check_new_name(name)


def test_a_queue_is_found_by_url_and_arn_whatever_the_host() -> None:
    """A URL that another host name was told in, a path and a bare name mean the same queue; nonsense means none."""
    for url in (
        "http://elsewhere:1/000/q.fifo",
        "/000/q.fifo",
        "q.fifo",
        "https://sqs.eu-west-1.amazonaws.com/1/q.fifo/",
    ):
        assert name_of_url(url) == "q.fifo"
    assert name_of_arn("arn:aws:sqs:eu-west-1:1:q", "x") == "q"
    for wrong in ("", "http://x/", "..", "a/..", "http://x/%2e%2e", "a\0b"):
        with pytest.raises(SqsError):
            name_of_url(wrong)
    with pytest.raises(SqsError):
        name_of_arn("arn:aws:s3:::q", "x")
