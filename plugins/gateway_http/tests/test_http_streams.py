"""Callers that speak more than plain HTTP: CloudEvents with their SDK, server-sent events and websockets."""

import json

import pytest
import requests
from http_callers import receive, send

pytestmark = pytest.mark.e2e


def test_cloudevents_with_their_sdk(door):
    """Binary and structured in, both out, read by the SDK; the same event twice is one."""
    http = pytest.importorskip("cloudevents.core.bindings.http")
    event_type = pytest.importorskip("cloudevents.core.v1.event").CloudEvent
    event = event_type(attributes={"id": "1", "source": "/till/3", "type": "sold", "specversion": "1.0",
                                   "datacontenttype": "application/json", "shop": "ä 7"}, data={"sku": 7})  # fmt: skip
    for made in (http.to_binary_event(event), http.to_structured_event(event)):
        channel = f"c{len(made.headers)}"
        for status in (201, 200):
            answer = door.ask("POST", f"/channels/{channel}/messages", data=made.body, headers=made.headers)
            assert answer.status_code == status, answer.text
        for form in ("binary", "structured", "raw"):
            got = receive(door, channel, f"wait=30&as={form}")
            headers = {
                name: value for name, value in got.headers.items() if name.lower().startswith(("ce-", "content-type"))
            }
            again = http.from_http_event(http.HTTPMessage(headers, got.content))
            assert again.get_data() == {"sku": 7}
            assert again.get_attributes()["shop"] == "ä 7"
            handle = got.headers["Dropr-Handle"]
            assert door.ask("POST", f"/leases/{handle}/release", json={"counted": False}).status_code == 204
    batch = [{"specversion": "1.0", "id": str(n), "source": "/s", "type": "t", "data": n} for n in range(3)]
    answer = door.ask("POST", "/channels/b/messages", json=batch,
                      headers={"Content-Type": "application/cloudevents-batch+json"})  # fmt: skip
    assert (answer.status_code, len(answer.json())) == (201, 3)
    got = receive(door, "b", "wait=30&as=batch&limit=3")
    assert got.json() == batch
    assert len(got.headers["Dropr-Handles"].split(",")) == 3


def test_server_sent_events(door):
    """As many in hand as the window says; each settled one makes room; leases end with the stream."""
    for body in (b"1", b"2", b"3"):
        send(door, body)
    with requests.get(door.url + "/channels/orders/stream?window=2", stream=True, timeout=60) as stream:
        found = events_of(stream)
        one, two = next(found), next(found)
        assert (one["text"], two["text"]) == ("1", "2")
        assert door.counts("orders")["leased"] == 2
        assert door.ask("POST", f"/leases/{one['handle']}/ack").status_code == 204
        assert next(found)["text"] == "3"
    got = receive(door)
    assert (got.content, got.headers["Dropr-Attempt"]) in ((b"2", "1"), (b"2", "2"))


def events_of(stream):
    for line in stream.iter_lines(chunk_size=1):
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


def test_a_websocket_sends_receives_and_settles(door):
    """Over one connection; what is not settled goes back when it closes."""
    client = pytest.importorskip("websockets.sync.client")
    url = door.url.replace("http", "ws") + "/socket"
    with client.connect(url, open_timeout=60) as line:

        def ask(**frame):
            line.send(json.dumps(frame))

        def hear():
            return json.loads(line.recv(timeout=60))

        ask(op="send", channel="orders", text="a", ref=1)
        assert hear().items() >= {"event": "sent", "ref": 1, "duplicate": False}.items()
        ask(op="send", channel="orders", json={"b": 2}, ref=2)
        assert hear()["event"] == "sent"
        ask(op="receive", channels=["orders"], window=1, ref=3)
        assert hear()["event"] == "receiving"
        first = hear()["message"]
        assert first["text"] == "a"
        ask(op="settle", handle=first["handle"], ref=4)
        heard = [hear(), hear()]
        assert {"event": "settled", "ref": 4, "handle": first["handle"], "held": True} in heard
        second = next(one["message"] for one in heard if one["event"] == "message")
        assert second["text"] == '{"b":2}' or second["text"] == '{"b": 2}'
        ask(op="nonsense")
        assert hear()["event"] == "problem"
        ask(op="settle", handle=first["handle"], ref=5)
        assert hear()["code"] == "lease_lost"
    assert receive(door).headers["Dropr-Id"] == second["id"]


def test_a_websocket_without_a_token_is_refused(make_door):
    """Before it is one."""
    client = pytest.importorskip("websockets.sync.client")
    status = pytest.importorskip("websockets.exceptions").InvalidStatus
    door = make_door({"users": {"a": {"token": "s3cret", "send": ["*"]}}}).start()
    url = door.url.replace("http", "ws") + "/socket"
    with pytest.raises(status) as refused, client.connect(url, open_timeout=60):
        pass
    assert refused.value.response.status_code == 401
    with client.connect(url, open_timeout=60, additional_headers={"Authorization": "Bearer s3cret"}) as line:
        line.send('{"op":"receive","channels":["orders"]}')
        assert json.loads(line.recv(timeout=60))["code"] == "not_allowed"
