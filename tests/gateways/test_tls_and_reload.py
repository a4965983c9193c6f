"""The doors of a real gateway process: encrypted ones, and what a SIGHUP makes of them."""

import contextlib
import shutil
import signal
import ssl
import subprocess

import pytest
from support.nodes import Road, eventually, free_port
from support.talk import Talk
from support.tiny_gateway import install

pytestmark = pytest.mark.e2e


@pytest.fixture
def road(tmp_path):
    """Nodes that find the plugin `tiny`; whatever they started is gone after the test."""
    road = Road(tmp_path)
    road.env.update(install(tmp_path / "site"))
    yield road
    road.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A directory with door.pem, a certificate for 127.0.0.1 that signs itself, and door.key."""
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("the program openssl, which makes the certificate, is not on this machine")
    place = tmp_path_factory.mktemp("tls")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout door.key -out door.pem -days 2"
    command = [openssl, *words.split(), "-subj", "/CN=door", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, cwd=place, check=True, capture_output=True)
    return place


def encrypted(url, certificate):
    """A connection that believes this certificate alone."""
    talk = Talk(url)
    context = ssl.create_default_context(cafile=str(certificate / "door.pem"))
    talk.socket = context.wrap_socket(talk.socket, server_hostname="127.0.0.1")
    return talk


def all_of(talk):
    """What a connection still says until it ends."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := talk.socket.recv(65536):
            said += piece
    return said


def test_an_encrypted_door_serves_who_speaks_tls_and_ends_who_does_not(road, certificate):
    """Jobs go through TLS; a client without it is cut off and has put nothing; the others do not notice."""
    listen = f"tls://127.0.0.1:0?cert={certificate}/door.pem&key={certificate}/door.key"
    (place,) = road.build("shop", shop={"gateways": {"tiny": {"listen": listen}}})
    process = place.run("gateway")
    (url,) = place.doors()["tiny"]
    assert url.startswith("tls://")
    with encrypted(url, certificate) as talk:
        assert talk.ask("put mail 0 secret").startswith("put ")
        with Talk(url) as plain:
            plain.say("put mail 0 plain")
            assert b"put " not in all_of(plain)
        assert talk.ask("count mail") == "count 1 0 0 0"
        with encrypted(url, certificate) as other:
            assert other.ask("take mail 0 0").endswith(" secret")
    assert process.stop() == 0
    assert "Traceback" not in process.text


def test_a_reload_reads_the_file_anew_and_drains_what_is_held(road):
    """After SIGHUP a new route counts, new gateways are open, others closed; who holds a job may end it."""
    doors = {name: {"use": "tiny", "listen": f"tcp://127.0.0.1:{free_port()}"} for name in ("stays", "goes", "comes")}
    before = {name: doors[name] for name in ("stays", "goes")}
    shop, _ = road.build("shop", "ware", shop={"gateways": before, "run": ["gateway"]})
    angel = shop.run("up", ready=False)
    assert sorted(shop.doors()) == ["goes", "stays"]
    with Talk(doors["goes"]["listen"]) as busy, Talk(doors["stays"]["listen"]) as idle:
        assert int(busy.ask("put orders 0 here").split()[1]) < 1 << 62
        number = busy.ask("take orders 0 0").split()[1]
        assert idle.ask("count orders") == "count 0 0 1 0"
        after = {name: doors[name] for name in ("stays", "comes")}
        shop.write(gateways=after, channels={"orders": {"to": "ware"}})
        angel.signal(signal.SIGHUP)
        assert idle.hear() == ""
        assert busy.ask(f"ack {number}") == "ok"
        assert busy.hear() == ""
    eventually(lambda: sorted(shop.doors()) == ["comes", "stays"])
    with pytest.raises(ConnectionRefusedError):
        Talk(doors["goes"]["listen"])
    with Talk(doors["comes"]["listen"]) as talk:
        assert int(talk.ask("put orders 0 there").split()[1]) >= 1 << 62
        assert talk.ask("count orders").startswith("count 0 0 0 0")
    assert angel.stop() == 0
    assert "Traceback" not in angel.text
