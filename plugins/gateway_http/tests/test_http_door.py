"""The door as its callers see it: a gateway process, and real clients over sockets."""

import base64
import json
import shutil
import socket
import subprocess
import threading
import time

import pytest
import requests
from dropr_gateway_http.options import Options  # noqa: F401 - the plugin is installed

pytestmark = pytest.mark.e2e

JSON = {"Content-Type": "application/json"}


def send(door, body=b"x", channel="orders", **headers):
    answer = door.ask("POST", f"/channels/{channel}/messages", data=body,
                      headers={name.replace("_", "-"): value for name, value in headers.items()})  # fmt: skip
    assert answer.status_code in (200, 201), answer.text
    return answer


def receive(door, channel="orders", query="wait=30"):
    return door.ask("GET", f"/channels/{channel}/messages?{query}")


# ── sending and receiving ────────────────────────────────────────────────────────────────────────


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


# ── large bodies ─────────────────────────────────────────────────────────────────────────────────


def test_a_large_body_is_never_in_memory(door, tmp_path):
    """Two hundred megabytes in and out through curl: the process grows by less than 64 MiB at its highest."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    size = 200 << 20
    movie = tmp_path / "movie"
    with movie.open("wb") as file:
        piece = bytes(range(256)) * 4096
        for number in range(size >> 20):
            file.write(number.to_bytes(8, "big") + piece[8:])
    send(door, b"warm")
    door.ask("DELETE", "/channels/orders/messages")
    idle = peak_of(door.pid)
    url = f"{door.url}/channels/movies/messages"
    put = ["curl", "-sS", "--fail", "-X", "POST", "-T", str(movie), "-H", "Content-Type: video/x-matroska", url]
    sent = json.loads(subprocess.run(put, check=True, capture_output=True, timeout=120).stdout)
    got, head = tmp_path / "got", tmp_path / "head"
    take = ["curl", "-sS", "--fail", "-D", str(head), "-o", str(got), f"{url}?wait=30"]
    subprocess.run(take, check=True, capture_output=True, timeout=120)
    assert subprocess.run(["cmp", str(movie), str(got)], check=False).returncode == 0
    assert sent["id"] in head.read_text()
    assert peak_of(door.pid) - idle < 64 << 20


def peak_of(pid: int) -> int:
    """The most memory that a process ever had, bytes."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:  # noqa: PTH123
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


def test_a_torn_upload_stores_nothing(door):
    """A caller that dies in the middle of a large body leaves no message and no file."""
    host, port = door.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.sendall(b"POST /channels/orders/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n")
        line.sendall(bytes(3 << 20))
    assert send(door, b"whole").status_code == 201
    assert receive(door).content == b"whole"
    assert receive(door, query="").status_code == 204


def test_a_large_message_in_json_names_its_place(door):
    """Its body is left out, and fetched by the handle."""
    body = bytes(300_000)
    send(door, body)
    (got,) = receive(door, query="wait=30&as=json").json()["messages"]
    assert (got["size"], "text" in got, "base64" in got) == (300_000, False, False)
    assert door.ask("GET", f"/leases/{got['handle']}/body").content == body
    assert door.ask("POST", f"/leases/{got['handle']}/ack").status_code == 204


# ── who may call ─────────────────────────────────────────────────────────────────────────────────


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


# ── other clients ────────────────────────────────────────────────────────────────────────────────


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


# ── the end ──────────────────────────────────────────────────────────────────────────────────────


def test_killed_in_the_middle_nothing_is_lost_and_nothing_doubled(door):
    """Four senders and two receivers; the process is killed twice while they work."""
    total, sent, got = 400, [], []
    lock = threading.Lock()
    url = {"now": door.url}
    over = threading.Event()

    def again(call):
        while True:
            try:
                answer = call()
                if answer.status_code < 500:
                    return answer
            except requests.RequestException:
                over.wait(0.02)

    def produce(which):
        session = requests.Session()
        for number in range(which, total, 4):
            name = f"{number}"
            answer = again(lambda name=name: session.post(
                url["now"] + "/channels/orders/messages", data=name, headers={"Idempotency-Key": name}, timeout=60,
            ))  # fmt: skip
            assert answer.status_code in (200, 201)
            with lock:
                sent.append(name)

    def consume():
        session = requests.Session()
        while not over.is_set():
            answer = again(lambda: session.get(url["now"] + "/channels/orders/messages?wait=0.2&hold=30", timeout=60))
            if answer.status_code != 200:
                continue
            handle = answer.headers["Dropr-Handle"]
            done = again(lambda handle=handle: session.post(url["now"] + f"/leases/{handle}/ack", timeout=60))
            with lock:
                got.append((answer.text, done.status_code))

    threads = [threading.Thread(target=produce, args=(which,)) for which in range(4)]
    threads += [threading.Thread(target=consume) for _ in range(2)]
    for thread in threads:
        thread.start()
    for share in (100, 250):
        while len(sent) < share:
            over.wait(0.01)
        door.kill()
        url["now"] = door.start().url
    for thread in threads[:4]:
        thread.join(90)
    ends = time.monotonic() + 60
    while waits(door) and time.monotonic() < ends:  # an answer may be lost: the next 404 says that it is done
        over.wait(0.1)
    over.set()
    for thread in threads[4:]:
        thread.join(90)
    done = [name for name, _ in got]
    assert set(done) == {str(number) for number in range(total)}
    acknowledged = [name for name, status in got if status == 204]
    assert len(acknowledged) == len(set(acknowledged))


def waits(door) -> int:
    """Messages that are not done."""
    counts = door.counts("orders")
    return counts["ready"] + counts["leased"] + counts["delayed"] + counts["buried"]


def test_it_drains(door):
    """Told to stop, it answers who waits, lets nobody new in, and ends well."""
    host, port = door.url.removeprefix("http://").split(":")
    head = b"GET /channels/orders/messages?wait=50 HTTP/1.1\r\nHost: localhost\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as line, line.makefile("rb") as answers:
        line.sendall(head + b"Content-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        assert answers.readline() == b"HTTP/1.1 100 Continue\r\n"  # so it waits
        assert door.stop() == 0
        assert answers.read().startswith(b"\r\nHTTP/1.1 204")
    with pytest.raises(ConnectionError):
        socket.create_connection((host, int(port)), timeout=60)
