"""What every request to the monitor meets, whatever it asks for."""

import logging
import threading

import pytest
from support.monitor import TOKEN, monitored

from dropr_core.api.runtime import Runtime
from dropr_core.config.node import from_mapping
from dropr_core.errors import UnknownPeer, WriteFailed
from dropr_core.monitor import table
from dropr_core.monitor.routes import Answer, Refused, Route, as_json, text

OPEN_ROUTE = Route("GET", "/open", lambda _request: text("for everybody"), open=True, quick=True)


def raises(error):
    """A function that does."""

    def function(_request):
        raise error

    return function


class Hanging:
    """A store that hangs until it is let go."""

    def __init__(self):
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, _request):
        self.begun.set()
        assert self.go_on.wait(60)
        return text("late")


@pytest.fixture
def hanging():
    """It goes on at the end at the latest."""
    made = Hanging()
    yield made
    made.go_on.set()


def routes(_runtime, _log):
    """Some that show what they were asked."""
    return [
        OPEN_ROUTE,
        Route("GET", "/what", lambda r: as_json([r.method, r.path, dict(r.query), r.rest])),
        Route("GET", "/below/*", lambda r: as_json(r.rest)),
        Route("POST", "/act", lambda r: as_json(r.document())),
        Route("GET", "/refused", raises(Refused(409, "it is too late"))),
        Route("GET", "/unknown", raises(UnknownPeer("no peer is called 'x'"))),
        Route("GET", "/store", raises(WriteFailed("the disk is full"))),
        Route("GET", "/fault", raises(RuntimeError("secret inside"))),
        Route("GET", "/framed", lambda _r: Answer(b"", headers=(("cache-control", "max-age=1"),))),
    ]


@pytest.fixture
def caller(tmp_path, monkeypatch, hanging):
    """The monitor of a node in memory, with those routes."""
    slow = [Route("GET", "/hang", hanging), Route("GET", "/probe", lambda _request: text("alive"), open=True)]
    monkeypatch.setattr(table, "MAKERS", (routes, lambda _runtime, _log: slow))
    mapping = {
        "node": "shop", "data": str(tmp_path / "data"), "storage": "memory",
        "monitor": {"listen": "http://127.0.0.1:0", "token": TOKEN, "hosts": ["shop.example"]},
    }  # fmt: skip
    with Runtime.open(from_mapping(mapping, tmp_path)) as runtime, monitored(runtime) as caller:
        yield caller


def test_a_request_reaches_its_route(caller):
    """With its query, and what stands for the star; HEAD is GET without the body."""
    assert caller.ask("GET", "/what?a=1&b=%C3%A4").document == ["GET", "/what", {"a": "1", "b": "ä"}, ""]
    assert caller.ask("GET", "/below/one/two").document == "one/two"
    assert caller.ask("POST", "/act", {"x": [1]}).document == {"x": [1]}
    head = caller.ask("HEAD", "/below/one")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "5")


def test_nothing_but_open_routes_without_the_token(caller, caplog):
    """Not with a wrong one either; the log says so, and shows none of them."""
    assert caller.ask("GET", "/open", token=None).body == b"for everybody"
    bare = caller.ask("GET", "/what", token=None)
    assert (bare.status, bare.headers["www-authenticate"]) == (401, 'Bearer realm="dropr"')
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            assert caller.ask("GET", "/what", token="wrong-and-long-enough").status == 401
            assert caller.ask("POST", "/act", {}, token="wrong-and-long-enough").status == 401
    assert len(caplog.messages) == 4  # the 1st, 2nd, 4th and 8th
    assert "wrong-and-long-enough" not in caplog.text
    assert TOKEN not in caplog.text


def test_probes_are_answered_while_the_store_hangs(caller, hanging):
    """However many requests with the token wait for it."""
    waiting = [threading.Thread(target=caller.ask, args=("GET", "/hang")) for _ in range(6)]
    for thread in waiting:
        thread.start()
    assert hanging.begun.wait(30)
    assert caller.ask("GET", "/probe", token=None).body == b"alive"
    hanging.go_on.set()
    for thread in waiting:
        thread.join()


def test_web_sockets_are_refused_without_a_word_in_the_log(caller, caplog):
    """Nothing here speaks them."""
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    assert caller.ask("GET", "/what", **upgrade).status in {403, 404}
    assert caplog.messages == []


def test_a_foreign_name_is_refused_before_anything(caller):
    """Even with the token, and for open routes too."""
    for path in ("/what", "/open"):
        assert caller.ask("GET", path, Host="evil.example").status == 421
    assert caller.ask("GET", "/what", Host="shop.example:99").status == 200


def test_pages_of_other_sites_may_not_act(caller):
    """A browser says where a request comes from; nothing of the answer is for them either."""
    act = {"Origin": "https://evil.example"}
    assert caller.ask("POST", "/act", {}, **act).status == 403
    assert caller.ask("POST", "/act", {}, Sec_Fetch_Site="cross-site").status == 403
    assert caller.ask("GET", "/what", Sec_Fetch_Site="same-site").status == 403
    assert caller.ask("POST", "/act", {}, Origin=f"http://{caller.place}", Sec_Fetch_Site="same-origin").status == 200
    assert caller.ask("GET", "/open", token=None, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate",
                      Sec_Fetch_Dest="document").status == 200  # fmt: skip
    assert not [name for name in caller.ask("OPTIONS", "/act").headers if name.startswith("access-control")]


def test_every_answer_keeps_to_the_strict_policy(caller):
    """Good ones, refused ones, and what is not there; a route may only add."""
    for path in ("/what", "/open", "/nowhere", "/fault", "/framed"):
        headers = caller.ask("GET", path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == ("max-age=1" if path == "/framed" else "no-store")


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/refused", 409, "it is too late"),
        ("/unknown", 400, "no peer is called 'x'"),
        ("/store", 503, "the disk is full"),
        ("/fault", 500, "a fault in dropr; its log says where"),
        ("/nowhere", 404, "there is nothing at /nowhere"),
        ("/act", 405, "GET is not for /act: use POST"),
    ],
)
def test_errors_become_one_sentence(caller, path, status, told):
    """With a status that fits; of our own faults the page says nothing."""
    reply = caller.ask("GET", path)
    assert reply.status == status
    assert told in reply.document["error"]


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b"[1]", 400), (b"[" * 100_000, 400), (b"x" * (300 << 10), 413), (b"", 200)]
)
def test_bodies_that_are_none_are_refused(caller, body, status):
    """Before a route does anything."""
    assert caller.ask("POST", "/act", body).status == status
