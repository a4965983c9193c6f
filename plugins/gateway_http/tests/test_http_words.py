"""What a request means, without a server: parameters, batches, CloudEvents, callers, the OpenAPI document."""

import base64
import json

import msgspec
import pytest
from dropr_gateway_http import batches, events, reading, words
from dropr_gateway_http.callers import Callers
from dropr_gateway_http.operation import Operation, Routes
from dropr_gateway_http.options import Options, User
from dropr_gateway_http.problems import Trouble
from hypothesis import given, settings
from hypothesis import strategies as st

from dropr_core.model.names import first_rank, priority_of_rank

ATTRIBUTE = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)


def refused(status: int, call, *arguments, **named):
    with pytest.raises(Trouble) as caught:
        call(*arguments, **named)
    assert caught.value.status == status
    return caught.value.detail


# ── parameters ───────────────────────────────────────────────────────────────────────────────────


def test_headers_say_everything_about_a_message():
    """Each option of sending has a header."""
    parcel = reading.parcel_of(
        "orders",
        {
            "dropr-rank": "7", "dropr-delay": "1.5", "dropr-expires-in": "60", "dropr-key": "k",
            "dropr-receipt": "true",
            "dropr-headers": '{"Tenant":"7"}', "idempotency-key": "once", "content-type": "text/csv",
            "traceparent": "00-a",
            "accept": "*/*",
        },
        b"a,b",
    )  # fmt: skip
    assert (parcel.rank, parcel.delay, parcel.expires_in, parcel.key, parcel.receipt) == (7, 1.5, 60.0, "k", True)
    assert parcel.headers == {"Tenant": "7", "traceparent": "00-a"}
    assert (parcel.dedup, parcel.content_type, parcel.body) == ("once", "text/csv", b"a,b")


@pytest.mark.parametrize(
    "headers",
    [
        {"dropr-rank": "-1"}, {"dropr-rank": "x"}, {"dropr-rank": "4294967296"}, {"dropr-delay": "nan"},
        {"dropr-delay": "inf"}, {"dropr-expires-in": "0"}, {"dropr-receipt": "perhaps"}, {"dropr-prio": "1"},
        {"dropr-priority": "10"},
        {"dropr-headers": "[]"}, {"dropr-headers": '{"a":1}'}, {"idempotency-key": ""}, {"content-type": "text/ä"},
    ],
)  # fmt: skip
def test_a_header_that_means_nothing_is_refused(headers):
    """A slip of the keyboard is told, and nothing is stored: also a header that only looks like one of ours."""
    refused(400, reading.parcel_of, "orders", headers, b"")


def test_a_priority_is_the_first_rank_of_its_band():
    """By header and in a batch, as `priority=` of Python; a rank beside it is more exact, and counts."""
    for priority in range(10):
        parcel = reading.parcel_of("orders", {"dropr-priority": str(priority)}, b"")
        assert priority_of_rank(parcel.rank) == priority
        (item,) = batches.of_json("orders", json.dumps([{"priority": priority}]).encode())
        assert item.rank == parcel.rank == first_rank(priority)
    assert batches.of_json("orders", b'[{"priority": 1, "rank": 7}]')[0].rank == 7


def test_a_query_is_read_strictly():
    """Unknown words, doubled ones and values out of bounds are refused."""
    assert reading.query_of(b"as=json&wait=2&limit=5", words.ReceiveQuery).limit == 5
    for text in (b"wiat=2", b"wait=-1", b"wait=1&wait=2", b"limit=0", b"as=xml", b"hold=0"):
        refused(400, reading.query_of, text, words.ReceiveQuery)


# ── batches ──────────────────────────────────────────────────────────────────────────────────────


def test_all_forms_of_a_batch_mean_the_same():
    """Array, lines and multipart give the same messages."""
    items = [
        {"text": "ä", "rank": 1, "headers": {"a": "b"}},
        {"base64": base64.b64encode(b"\0\xff\r\n--b\r\n").decode(), "content_type": "image/png"},
        {"json": {"sku": 7, "x": 1.0}, "idempotency_key": "k"},
    ]
    array = batches.of_json("c", json.dumps(items).encode())
    lines = batches.of_lines("c", b"\n\n".join(json.dumps(item).encode() for item in items) + b"\n")
    parts = [
        b'Content-Type: text/plain; charset=utf-8\r\nDropr-Rank: 1\r\nDropr-Headers: {"a":"b"}\r\n\r\n' + "ä".encode(),
        b"Content-Type: image/png\r\n\r\n\0\xff\r\n--b\r\n",
        b'Content-Type: application/json\r\nIdempotency-Key: k\r\n\r\n{"sku": 7, "x": 1.0}',
    ]
    data = b"".join(b"--zz\r\n" + part + b"\r\n" for part in parts) + b"--zz--\r\n"
    assert batches.of_multipart("c", 'multipart/mixed; boundary="zz"', data) == array == lines
    assert array[2].body == b'{"sku": 7, "x": 1.0}'  # as it was written


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=8))
def test_multipart_keeps_every_byte(bodies):
    """Whatever the bodies are, they come out as they went in."""
    data = b"".join(b"--q7Zk3\r\n\r\n" + body + b"\r\n" for body in bodies) + b"--q7Zk3--"
    assert [one.body for one in batches.of_multipart("c", "multipart/mixed; boundary=q7Zk3", data)] == bodies


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b"{}", b"[1]", b'[{"text":"a","json":1}]', b'[{"txet":"a"}]', b'[{"base64":"?"}]', b"\xff",
     b"[" * 9999,
     b'[{"text":"\\ud800"}]'],
)  # fmt: skip
def test_a_batch_that_is_none_is_refused(document):
    """Never a traceback."""
    refused(400, batches.of_json, "c", document)


@pytest.mark.parametrize(
    ("media", "data"),
    [
        ("multipart/mixed", b""), ("multipart/mixed; boundary=b", b""), ("multipart/mixed; boundary=b", b"--c\r\n"),
        ("multipart/mixed; boundary=b", b"--b\r\n\r\nhalf"), ("multipart/mixed; boundary=b", b"--b--"),
        ("multipart/mixed; boundary=" + "b" * 71, b"--"),
    ],
)  # fmt: skip
def test_a_torn_multipart_batch_is_refused(media, data):
    """What was cut off on the way is no batch: else its last message would be stored in part."""
    refused(400, batches.of_multipart, "c", media, data)


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_garbage_is_refused_and_nothing_else(data):
    """Any bytes in any form: messages, or a refusal."""
    for take in (
        batches.of_json, batches.of_lines, lambda c, d: batches.of_multipart(c, "multipart/mixed; boundary=a", d),
        lambda _c, d: events.of_structured(d), lambda _c, d: events.of_batch(d),
    ):  # fmt: skip
        try:
            take("c", data)
        except Trouble as trouble:
            assert trouble.status == 400


# ── CloudEvents ──────────────────────────────────────────────────────────────────────────────────


@given(ATTRIBUTE, ATTRIBUTE, st.dictionaries(st.from_regex(r"[a-z0-9]{1,10}", fullmatch=True), ATTRIBUTE, max_size=3),
       st.binary(max_size=50))  # fmt: skip
def test_an_event_in_binary_mode_survives_both_ways(source, kind, extensions, body):
    """Headers in, structured out, binary out: the same attributes and bytes."""
    for taken in ("id", "source", "type", "specversion", "data", "datacontenttype"):
        extensions.pop(taken, None)
    attributes = {"specversion": "1.0", "id": "1", "source": source, "type": kind, **extensions}
    given_headers = {f"ce-{name}": events.header_of(value) for name, value in attributes.items()}
    found = events.of_binary(given_headers)
    assert found is not None
    headers, dedup = found
    assert headers == {f"ce-{name}": value for name, value in attributes.items()}
    assert dedup == events.dedup_of(source, "1")
    message = events.Content("application/octet-stream", headers, body)
    document = events.structured(message, "other", "/other")
    again = events.binary(events.of_structured(document), "other", "/other")
    assert (again.headers, again.body) == (headers, body)


def test_json_data_is_not_written_anew():
    """Numbers, order and spaces of the data stay as the sender wrote them."""
    document = b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"b": 1.10, "a":[1e2]}}'
    content = events.of_structured(document)
    assert content.body == document
    assert events.binary(content, "", "").body == b'{"b": 1.10, "a":[1e2]}'


@pytest.mark.parametrize(
    "document",
    [
        b"{}", b'{"specversion":"0.3","id":"1","source":"/s","type":"t"}',
        b'{"specversion":"1.0","id":"","source":"/","type":"t"}',
        b'{"specversion":"1.0","id":"1","source":"/s","type":"t","Bad-Name":"x"}', b"[]", b"null",
    ],
)  # fmt: skip
def test_what_is_no_event_is_refused(document):
    """An event without its attributes would be nobody's event at the other end."""
    refused(400, events.of_structured, document)


def test_a_message_that_was_no_event_becomes_one():
    """A receiver that speaks CloudEvents gets what beanstalkd's clients put, too."""
    made = json.loads(events.structured(events.Content("text/plain", {}, b"hello"), "7", "/nodes/a/channels/b"))
    assert made == {"specversion": "1.0", "id": "7", "source": "/nodes/a/channels/b", "type": "dropr.message",
                    "datacontenttype": "text/plain", "data": "hello"}  # fmt: skip
    binary = json.loads(events.structured(events.Content("image/png", {}, b"\xff"), "7", "/x"))
    assert base64.b64decode(binary["data_base64"]) == b"\xff"


# ── callers ──────────────────────────────────────────────────────────────────────────────────────

USERS = Options(users={
    "shop": User(token="s3cret", send=("orders", "shop/*")),
    "desk": User(token="t0ken", receive=("orders",), manage=True),
})  # fmt: skip


def test_a_token_gives_its_rights_and_no_others():
    """Per user and channel, and none without a token."""
    callers = Callers(USERS)
    shop = callers.known({b"authorization": b"Bearer s3cret"})
    assert shop.may_send("orders")
    assert shop.may_send("shop/eu")
    assert not shop.may_send("other")
    assert not shop.may_receive("orders")
    assert callers.known({b"authorization": b"bearer t0ken"}).may_manage("orders")
    for header in (b"", b"Bearer", b"Bearer ", b"Bearer S3cret", b"Basic s3cret", b"Bearer s3cret x", b"\xff"):
        assert "Bearer" in refused(401, callers.known, {b"authorization": header})


def test_no_web_page_may_call_unless_it_is_named():
    """A page in a browser on this machine reaches loopback; what it sends is told from a program's."""
    callers = Callers(Options(origins=("https://shop.example",)))
    host = {b"host": b"127.0.0.1:8480"}
    refused(403, callers.known, {**host, b"origin": b"https://evil.example"})
    refused(403, callers.known, {**host, b"sec-fetch-site": b"cross-site"})
    assert callers.known({**host, b"origin": b"https://shop.example"}).name == "anybody"
    assert callers.known({**host, b"sec-fetch-site": b"none"}).name == "anybody"


def test_a_foreign_name_for_this_machine_is_refused():
    """DNS of somebody else that points to loopback (rebinding) opens nothing."""
    callers = Callers(Options(hosts=("queue.local",)))
    for name in (b"localhost", b"127.0.0.1:80", b"[::1]:80", b"Queue.Local:80", b"10.0.0.9"):
        callers.known({b"host": name})
    for name in (b"evil.example", b"127.0.0.1.evil.example", b"[evil]", b""):
        refused(421, callers.known, {b"host": name})


# ── operations ───────────────────────────────────────────────────────────────────────────────────


async def _nothing(_call):
    raise AssertionError


def test_a_slash_in_a_name_is_no_slash_of_the_path():
    """The path is taken apart before it is decoded."""
    routes = Routes([
        Operation(name="a", method="GET", path="/channels/{channel}", says="", handle=_nothing),
        Operation(name="b", method="GET", path="/channels/{channel}/messages", says="", handle=_nothing),
    ])  # fmt: skip
    assert routes.find("GET", "/channels/a%2Fmessages")[1] == {"channel": "a/messages"}
    assert routes.find("GET", "/channels/a/messages")[0].name == "b"
    refused(404, routes.find, "GET", "/channels/a/b/messages")
    refused(404, routes.find, "GET", "/channels//messages")
    refused(405, routes.find, "POST", "/channels/a")


def test_every_type_of_the_document_is_there():
    """No reference points nowhere, and each operation names its problems."""
    from dropr_gateway_http.app import document_of

    document = msgspec.json.decode(document_of(USERS))
    schemas = document["components"]["schemas"]
    text = json.dumps(document)
    for name in set(json.loads(f"[{','.join(_references(text))}]")):
        assert name.removeprefix("#/components/schemas/") in schemas
    assert document["security"] == [{"token": []}]
    for path in document["paths"].values():
        for operation in path.values():
            assert {"400", "401", "503"} <= set(operation["responses"])


def _references(text: str) -> list[str]:
    import re

    return re.findall(r'"\$ref": ("[^"]+")', text)
