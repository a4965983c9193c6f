"""The door as its callers see it: a gateway process, what it takes and gives, and who may call."""

import base64
import json
import socket
import threading

import pytest
from dropr_gateway_http.options import Options  # noqa: F401 - the plugin is installed
from http_callers import receive, send

pytestmark = pytest.mark.e2e


def test_what_is_sent_comes_out_unchanged_and_once(door):
    """Any bytes, with type and headers; acknowledged it is gone."""
    body = bytes(range(256))
    sent = send(door, body, Content_Type="image/png", Dropr_Headers='{"Tenant":"\\u00e4"}', traceparent="00-1-2-03")
    assert sent.status_code == 201
    assert sent.headers["Location"] == f"/messages/{sent.json()['id']}"
    got = receive(door)
    assert (got.content, got.headers["Content-Type"]) == (body, "image/png")
    assert json.loads(got.headers["Dropr-Headers"]) == {"Tenant": "ä"}
    assert (got.headers["Dropr-Attempt"], got.headers["traceparent"]) == ("1", "00-1-2-03")
    handle = got.headers["Dropr-Handle"]
    assert door.ask("POST", f"/leases/{handle}/ack").status_code == 204
    assert door.ask("POST", f"/leases/{handle}/ack").status_code == 404
    assert receive(door, query="").status_code == 204
    assert door.counts("orders")["leased"] == 0


def test_an_idempotency_key_stores_once(door):
    """201 the first time, 200 with the same id from then on."""
    first = send(door, b"a", Idempotency_Key="order 7")
    second = send(door, b"a", Idempotency_Key="order 7")
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    assert second.json()["duplicate"]
    assert door.counts("orders")["ready"] == 1
    handle = receive(door).headers["Dropr-Handle"]
    assert door.ask("POST", f"/leases/{handle}/ack").status_code == 204
    assert send(door, b"a", Idempotency_Key="order 7").status_code == 200  # the consumer was faster than the retry


def test_a_batch_is_one_commit_and_all_or_nothing(door):
    """Three messages, or none where one of them cannot be."""
    items = [{"text": "a"}, {"base64": base64.b64encode(b"\xff").decode()}, {"json": {"b": 1}}]
    answer = door.ask("POST", "/channels/orders/batch", json=items)
    assert (answer.status_code, len(answer.json())) == (201, 3)
    bad = [{"text": "a"}, {"text": "b", "expires_in": 1, "delay": 2}]
    assert door.ask("POST", "/channels/orders/batch", json=bad).status_code == 400
    got = receive(door, query="as=json&limit=10").json()["messages"]
    assert [one.get("text", one.get("base64")) for one in got] == ["a", "/w==", '{"b": 1}']
    settle = [{"handle": one["handle"]} for one in got] + [{"handle": "bm9uZQ"}]
    assert door.ask("POST", "/leases", json=settle).json() == {"settled": [True, True, True, False]}


def test_a_long_poll_gets_what_is_sent_meanwhile(door):
    """And one that waits in vain gets 204."""
    found = []
    waiter = threading.Thread(target=lambda: found.append(receive(door)))
    waiter.start()
    send(door, b"late")
    waiter.join(60)
    assert found[0].content == b"late"
    assert receive(door, query="wait=0.05").status_code == 204


def test_a_poller_that_hangs_up_holds_nothing(door):
    """What comes after it left goes to the next one, at the first try."""
    host, port = door.url.removeprefix("http://").split(":")
    head = b"GET /channels/orders/messages?wait=50 HTTP/1.1\r\nHost: localhost\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as line:
        line.sendall(head + b"Content-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 100")  # so it waits
    send(door, b"a")
    assert receive(door).headers["Dropr-Attempt"] == "1"


def test_a_lease_ends_by_itself(door):
    """After its time the message comes again, and the attempt counts."""
    send(door)
    first = receive(door, query="wait=30&hold=1")
    second = receive(door)
    assert (first.headers["Dropr-Id"], second.headers["Dropr-Attempt"]) == (second.headers["Dropr-Id"], "2")
    late = door.ask("POST", f"/leases/{first.headers['Dropr-Handle']}/ack")
    assert (late.status_code, late.json()["code"]) == (404, "lease_lost")
    assert "hold" in late.json()["detail"]


def test_release_bury_touch_and_kick(door):
    """The four other ways with a lease, and back out of the dead letters."""
    send(door)
    handle = receive(door).headers["Dropr-Handle"]
    assert door.ask("POST", f"/leases/{handle}/touch", json={"hold": 100}).status_code == 204
    assert door.ask("POST", f"/leases/{handle}/release", json={"delay": 0}).status_code == 204
    got = receive(door)
    assert got.headers["Dropr-Attempt"] == "2"
    bury = door.ask("POST", f"/leases/{got.headers['Dropr-Handle']}/bury", json={"reason": "no such sku"})
    assert bury.status_code == 204
    dead = door.ask("GET", "/channels/orders/peek?state=buried&as=json").json()
    assert "no such sku" in dead["reason"]
    assert door.ask("POST", "/channels/orders/kick").json() == {"count": 1}
    assert receive(door).status_code == 200


def test_pause_purge_and_remove(door):
    """Consumers of a paused channel get nothing while sending goes on."""
    assert door.ask("POST", "/channels/orders/pause").status_code == 204
    one, _ = send(door), send(door)
    assert receive(door, query="wait=0.1").status_code == 204
    assert door.counts("orders")["paused"]
    assert door.ask("POST", "/channels/orders/resume").status_code == 204
    assert door.ask("DELETE", f"/messages/{one.json()['id']}").status_code == 204
    assert door.ask("GET", f"/messages/{one.json()['id']}").status_code == 404
    assert door.ask("DELETE", "/channels/orders/messages").json() == {"count": 1}
    assert receive(door, query="").status_code == 204


def test_a_channel_with_a_slash(door):
    """It is one segment of the path."""
    send(door, channel="shop%2Feu")
    assert [one["channel"] for one in door.ask("GET", "/channels").json()["channels"]] == ["shop/eu"]
    assert receive(door, "shop%2Feu").status_code == 200


def test_users_have_their_rights(make_door):
    """Without a token nothing, with one what its user may."""
    door = make_door({"users": {"till": {"token": "s3cret", "send": ["orders"]},
                                "desk": {"token": "t0ken", "receive": ["orders"]}}}).start()  # fmt: skip
    till, desk = ({"Authorization": f"Bearer {token}"} for token in ("s3cret", "t0ken"))
    for path in ("/", "/channels", "/openapi.json", "/nowhere"):
        answer = door.ask("GET", path)
        assert (answer.status_code, answer.headers["Content-Type"]) == (401, "application/problem+json")
        assert "WWW-Authenticate" in answer.headers
    post = "/channels/orders/messages"
    assert door.ask("POST", post, data=b"a", headers=till).status_code == 201
    assert door.ask("POST", post, data=b"a", headers=desk).status_code == 403
    assert door.ask("GET", post, headers=till).status_code == 403
    got = door.ask("GET", post, headers=desk)
    assert got.content == b"a"
    assert door.ask("POST", f"/leases/{got.headers['Dropr-Handle']}/ack", headers=till).status_code == 403
    assert door.ask("POST", "/channels/orders/pause", headers=desk).status_code == 403
    assert "s3cret" not in door.log.read_text()


def test_a_request_that_two_could_read_differently_is_refused(door):
    """Smuggling: two lengths, a length and chunks, odd codings, doubled headers; and a head without end."""
    host, port = door.url.removeprefix("http://").split(":")
    head = b"POST /channels/orders/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    for rest in (
        b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", b"Content-Length : 1\r\n\r\na", b"Content-Length: +1\r\n\r\na",
        b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", b"Host: other\r\nContent-Length: 1\r\n\r\na",
        b"Dropr-Rank: 1\r\nDropr-Rank: 2\r\nContent-Length: 1\r\n\r\na",
    ):  # fmt: skip
        assert raw(host, port, head + rest).startswith(b"HTTP/1.1 400"), rest
    assert raw(host, port, head + b"X: " + b"a" * 600_000) == b""
    assert door.counts("orders")["ready"] == 0


def raw(host, port, data) -> bytes:
    """What comes back for bytes."""
    answer = b""
    with socket.create_connection((host, int(port)), timeout=60) as line:
        try:
            line.sendall(data)
            while piece := line.recv(65536):
                answer += piece
        except ConnectionError:
            pass
    return answer


def test_what_is_wrong_is_said_in_words(door):
    """Every refusal is a problem document, with a code and what to do."""
    for method, path, status in (
        ("GET", "/nowhere", 404), ("PUT", "/channels", 405), ("GET", "/channels/a%20b/messages", 400),
        ("GET", "/channels/a/messages?limit=x", 400), ("GET", "/channels/a/messages?wiat=5", 400),
        ("POST", "/channels/a/batch", 415), ("GET", "/messages/x", 400), ("POST", "/leases/x/ack", 404),
        ("GET", "/messages/00000000-0000-7000-8000-000000000000", 404),
    ):  # fmt: skip
        answer = door.ask(method, path)
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), path
        assert answer.json()["status"] == status
        assert len(answer.json()["detail"]) > 10
    assert door.ask("PUT", "/channels").headers["Allow"] == "GET"
