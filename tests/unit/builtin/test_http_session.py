"""A web server cannot hold a worker, and the environment decides nothing about this machine's own addresses."""

import contextlib
import socket
import threading
import uuid

import pytest

from dropr_core.builtin.handlers import webhook
from dropr_core.builtin.handlers.http_session import is_loopback, proxies_for
from dropr_core.config.options import build
from dropr_core.contracts.handler import NoResult, Work
from dropr_core.errors import ConfigError, Reject, Retry
from dropr_core.model.message import Message
from dropr_core.system.clock import FakeClock

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """An environment without proxies."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


def work(body=b"body"):
    """A message for a handler."""
    message = Message(id=uuid.UUID(int=7).bytes, sender="shop", channel="orders")
    return Work(message, body, body.decode(), 1, False, 0.0)


class Site:
    """A server that answers each connection with a function of its own."""

    def __init__(self, serve):
        self.serve, self.seen, self.stop = serve, [], threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/"
        self.threads = [threading.Thread(target=self.run)]
        self.threads[0].start()

    def run(self):
        """Take connections until the end."""
        while True:
            connection, _ = self.socket.accept()
            if self.stop.is_set():
                connection.close()
                return
            thread = threading.Thread(target=self.one, args=(connection,))
            self.threads.append(thread)
            thread.start()

    def one(self, connection):
        """One connection."""
        with connection, contextlib.suppress(OSError):
            self.seen.append(connection.recv(65536))
            self.serve(self, connection)

    def drip(self, connection, first):
        """Something first, then a byte now and then until the other side hangs up."""
        connection.sendall(first)
        while not self.stop.wait(0.02):
            connection.sendall(b"x")

    def close(self):
        """End all threads."""
        self.stop.set()
        socket.create_connection(self.socket.getsockname()).close()
        for thread in self.threads:
            thread.join()
        self.socket.close()


@pytest.fixture
def site():
    """Makes servers."""
    made = []

    def make(serve):
        made.append(Site(serve))
        return made[-1]

    yield make
    for one in made:
        one.close()


def handle(target, **options):
    """What the handler makes of one message."""
    handler = webhook.Webhook(build(webhook.Options, {"target": target, **options}), FakeClock())
    try:
        return handler.handle(work())
    finally:
        handler.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"


@pytest.mark.parametrize(
    "first",
    [
        b"",  # not even a status line
        b"HTTP/1.1 503 No\r\n\r\n",  # it says itself that it was not done
    ],
    ids=["status", "not done"],
)
def test_an_answer_that_drips_is_cut_off(site, first):
    """Each byte comes well within the time-out of a read, and the message is tried again all the same."""
    slow = site(lambda self, connection: self.drip(connection, first))
    with pytest.raises(Retry, match=r"no whole answer within|HTTP 503"):
        handle(slow.url, timeout="300ms")


BODIES = {
    "headers": b"HTTP/1.1 200 OK\r\nX-Long: ",
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n",
    "until the end": b"HTTP/1.1 201 Made\r\n\r\n",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8000\r\n",
}


@pytest.mark.parametrize("first", BODIES.values(), ids=BODIES)
def test_work_whose_answer_drips_is_done_and_has_no_result(site, first):
    """The status says that it was done, and doing it again would not make its answer come."""
    slow = site(lambda self, connection: self.drip(connection, first))
    done = handle(slow.url, timeout="300ms")
    assert isinstance(done, NoResult)
    assert "no whole answer within 0.3 s" in done.reason


@pytest.mark.parametrize("first", [BODIES["length"], BODIES["chunk"]], ids=["length", "chunk"])
def test_work_whose_answer_breaks_off_is_done_and_has_no_result(site, first):
    """The server, or something on the way, ends the connection in the middle of the body."""
    broken = site(lambda _self, connection: connection.sendall(first + b"half of i"))
    done = handle(broken.url)
    assert isinstance(done, NoResult)
    assert "the answer broke off after HTTP 200" in done.reason


def test_a_refusal_that_breaks_off_is_a_refusal(site):
    """The rest of its text would not change what the status says."""
    broken = site(lambda _self, connection: connection.sendall(b"HTTP/1.1 422 No\r\nContent-Length: 99\r\n\r\nha"))
    with pytest.raises(Reject, match="HTTP 422 No"):
        handle(broken.url)


def test_a_server_that_takes_no_body_is_cut_off(site):
    """Sending is a part of the exchange: who reads nothing of a large body holds nobody."""
    deaf = site(lambda self, _connection: self.stop.wait())
    handler = webhook.Webhook(build(webhook.Options, {"target": deaf.url, "timeout": "300ms"}), FakeClock())
    with pytest.raises(Retry):
        handler.handle(work(b"x" * 50_000_000))
    handler.close()


def test_after_a_cut_the_next_message_goes_its_way(site):
    """The deadline of one exchange does not touch the next one of the same thread."""
    answers = iter([lambda self, connection: self.drip(connection, b"HTTP"),
                    lambda _self, connection: connection.sendall(OK)])  # fmt: skip

    def answer(self, connection):
        next(answers)(self, connection)

    moody = site(answer)
    handler = webhook.Webhook(build(webhook.Options, {"target": moody.url, "timeout": "300ms"}), FakeClock())
    with pytest.raises(Retry):
        handler.handle(work())
    assert handler.handle(work()) == "ok"
    handler.close()


def test_an_answer_without_end_is_done_and_has_no_result(site):
    """No more of it is read than a result may have."""
    endless = site(pour)
    assert isinstance(handle(endless.url), NoResult)


def pour(site, connection):
    """An answer without end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not site.stop.is_set():
        connection.sendall(b"x" * 65536)


def test_proxies_of_the_environment_are_not_asked_for_loopback(site, environment):
    """A worker behind a company's proxy reaches the service beside it."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        environment.setenv(name, "http://127.0.0.1:1")
    here = site(lambda _self, connection: connection.sendall(OK))
    assert handle(here.url) == "ok"


def test_a_proxy_of_the_configuration_is_asked(site, environment):
    """`proxy` counts whatever the environment says; the proxy gets the whole address."""
    environment.setenv("http_proxy", "http://127.0.0.1:1")
    proxy = site(lambda _self, connection: connection.sendall(OK))
    assert handle("http://hooks.invalid/orders", proxy=proxy.url) == "ok"
    assert proxy.seen[0].startswith(b"POST http://hooks.invalid/orders ")


def test_what_the_environment_says_counts_elsewhere(environment):
    """`http_proxy` and `no_proxy` as everywhere, unless the configuration says otherwise."""
    environment.setenv("http_proxy", "http://proxy.example:3128")
    environment.setenv("no_proxy", "inside.example")
    assert proxies_for("http://hooks.example/", None)["http"] == "http://proxy.example:3128"
    assert not proxies_for("http://inside.example/", None)
    assert not proxies_for("http://hooks.example/", "none")
    assert proxies_for("http://127.0.0.1/", "http://other:1") == {"http": "http://other:1", "https": "http://other:1"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "[::1]", "localhost", "LOCALHOST.", "hooks.localhost"])
def test_loopback_is_known_by_its_address(host):
    """Whatever way it is written."""
    assert is_loopback(f"http://{host}:80/x")


@pytest.mark.parametrize("host", ["127.0.0.1.example", "10.0.0.1", "localhost.example", "[fe80::1]"])
def test_what_only_looks_like_loopback_is_none(host):
    """Names that begin like an address are names."""
    assert not is_loopback(f"http://{host}/")


@pytest.mark.parametrize("proxy", ["proxy", "ftp://x", "http://"])
def test_a_proxy_that_is_no_address_is_a_mistake(proxy):
    """Said when the configuration is read."""
    with pytest.raises(ConfigError, match="proxy"):
        build(webhook.Options, {"target": "http://x/", "proxy": proxy})


def test_no_password_of_the_environment_is_sent(site, environment, tmp_path):
    """A ~/.netrc for the same host is nobody's business here."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    environment.setenv("HOME", str(tmp_path))
    here = site(lambda _self, connection: connection.sendall(OK))
    assert handle(here.url) == "ok"
    assert b"Authorization" not in here.seen[0]
