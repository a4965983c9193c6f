"""TLS: who is trusted, who is not, and what the errors say."""

import asyncio
import contextlib
import logging
import socket
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from dropr_transport_curl import CurlTransport, Options, Tls
from dropr_transport_curl.accepting import Accepting

from dropr_core.errors import Unanswered, Unreachable
from dropr_core.testing.transport_contract import Echo, TransportCase, TransportContract, request

WAIT = 30.0
LISTEN = "https://127.0.0.1:0/dropr"


def transport(**tls):
    return CurlTransport(Options(tls=Tls(**tls)), logging.getLogger("test.curl"))


@pytest.fixture
def talk(certificates):
    """Ask a listener with the given settings of TLS through a client with others; returns the answer."""
    opened = []

    def talk(serving, asking):
        def paths(names):
            return {word: certificates / name for word, name in names.items()}

        server, client = transport(**paths(serving)), transport(**paths(asking))
        opened.extend((client, server))
        listener = server.listen(LISTEN, Echo())
        return client.connect(listener.url).ask(request(5000), idle=WAIT).result(WAIT)

    yield talk
    for one in opened:
        one.close()


SERVER = {"cert": "server.pem", "key": "server.key"}


def test_a_trusted_peer(talk):
    """A certificate of our authority with the right name is accepted."""
    assert talk(SERVER, {"ca": "ca.pem"}) == request(5000)


def test_fault_37_another_authority(talk):
    """A certificate of an authority that we do not trust means: nothing was sent; the error says what to check."""
    with pytest.raises(Unreachable, match=r"certificate was not accepted.*tls\.ca"):
        talk(SERVER, {"ca": "other.pem"})


def test_fault_37_the_systems_authorities_are_the_default(talk):
    """Without 'tls.ca' our private authority is not trusted."""
    with pytest.raises(Unreachable, match="certificate"):
        talk(SERVER, {})


def test_fault_37_another_name(talk):
    """A certificate for another host is not accepted."""
    with pytest.raises(Unreachable, match="certificate was not accepted"):
        talk({"cert": "stranger.pem", "key": "stranger.key"}, {"ca": "ca.pem"})


def test_client_certificates(talk):
    """A listener with 'tls.client_ca' takes callers with a certificate of that authority."""
    asking = {"ca": "ca.pem", "cert": "client.pem", "key": "client.key"}
    assert talk({**SERVER, "client_ca": "ca.pem"}, asking) == request(5000)


def test_fault_37_no_client_certificate(talk):
    """A caller without one gets no answer."""
    with pytest.raises((Unreachable, Unanswered)):
        talk({**SERVER, "client_ca": "ca.pem"}, {"ca": "ca.pem"})


def test_plain_http_to_a_tls_port_and_back(certificates):
    """Mixed-up schemes end in errors on the asking side and hurt nobody."""
    server = transport(cert=certificates / "server.pem", key=certificates / "server.key")
    client = transport(ca=certificates / "ca.pem")
    try:
        tls, plain = server.listen(LISTEN, Echo()), server.listen("http://127.0.0.1:0/dropr", Echo())
        with pytest.raises(Unanswered):
            client.connect(tls.url.replace("https", "http")).ask(request(30), idle=WAIT).result(WAIT)
        with pytest.raises(Unreachable, match="TLS"):
            client.connect(plain.url.replace("http", "https")).ask(request(30), idle=WAIT).result(WAIT)
        assert client.connect(tls.url).ask(request(30), idle=WAIT).result(WAIT) == request(30)
    finally:
        client.close()
        server.close()


@pytest.mark.parametrize("word", ["ca", "cert"])
def test_files_that_are_missing_are_named_when_asking(tmp_path, certificates, word):
    """A TLS file that cannot be read is the reason given, and nothing was sent."""
    server = transport(cert=certificates / "server.pem", key=certificates / "server.key")
    client = transport(**{word: tmp_path / "missing.pem"})
    try:
        listener = server.listen(LISTEN, Echo())
        with pytest.raises(Unreachable, match=rf"tls\.{word}"):
            client.connect(listener.url).ask(request(30), idle=WAIT).result(WAIT)
    finally:
        client.close()
        server.close()


def test_files_that_are_wrong_are_named_when_listening(tmp_path, certificates):
    """A listener whose certificate cannot be used says which files it tried."""
    for cert in (tmp_path / "missing.pem", certificates / "server.key"):
        server = transport(cert=cert)
        with pytest.raises(Unreachable, match=cert.name):
            server.listen(LISTEN, Echo())
        server.close()


def test_callers_that_never_shake_hands_are_bounded(certificates):
    """Connections that stop before or within the TLS handshake are strangers too: few places, little time."""
    server = CurlTransport(
        Options(
            tls=Tls(cert=certificates / "server.pem", key=certificates / "server.key"),
            max_strangers_per_address=3,
            admission=1.5,
        ),
        logging.getLogger("test.curl"),
    )
    client = transport(ca=certificates / "ca.pem")
    with contextlib.ExitStack() as stack:
        stack.callback(server.close)
        stack.callback(client.close)
        listener = server.listen(LISTEN, Echo())
        port = urlsplit(listener.url).port
        lines = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=WAIT)) for _ in range(10)]
        lines[-1].sendall(b"\x16\x03\x01\x02\x00\x01")
        assert client.connect(listener.url).ask(request(30), idle=WAIT).result(WAIT) == request(30)
        assert all(not line.recv(1) for line in lines)
        assert listener.connections.strangers == 0
        assert listener.connections.admitted == 1


class TestTlsContract(TransportContract):
    """The whole contract once more, over TLS."""

    @pytest.fixture
    def transport_case(self, certificates):
        tls = {"ca": certificates / "ca.pem", "cert": certificates / "server.pem", "key": certificates / "server.key"}
        return TransportCase(make=lambda: transport(**tls), listen=LISTEN, nobody="https://127.0.0.1:9/dropr")


def test_who_is_cut_off_just_after_the_handshake_leaves_no_transport_behind():
    """The task that greeted it was cancelled when there was a transport already: that one is ended, not its line."""
    told = []

    async def cancelled():
        greeting = asyncio.create_task(asyncio.sleep(60))
        visit = SimpleNamespace(
            transport=SimpleNamespace(abort=lambda: told.append("aborted")),
            line=SimpleNamespace(close=lambda: told.append("closed")), left=lambda: told.append("left"),
        )  # fmt: skip
        accepting = Accepting.__new__(Accepting)
        accepting._greeting = {greeting: visit}
        greeting.add_done_callback(accepting._greeted)
        greeting.cancel()
        await asyncio.wait([greeting])
        await asyncio.sleep(0)

    asyncio.run(cancelled())
    assert told == ["aborted", "left"]
