"""The end of a gateway process: killed in the middle of its work, or told to stop."""

import socket
import threading
import time

import pytest
import requests

pytestmark = pytest.mark.e2e


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
