"""Who lets whom in: keys of both sides, lists of clients, and what is said of a wrong url."""

import pytest
from dropr_transport_zmq.keys import new_secret, public_of
from zmq_peer import WAIT

from dropr_core.errors import Refused, Unreachable
from dropr_core.testing.echo import request


def test_fault_37_a_wrong_server_key_reaches_nobody(transport, echo, secret):
    """A peer that cannot prove the key in the url gets nothing, and the error says where to look."""
    url = transport(key=secret).listen("zmq+tcp://127.0.0.1:0", echo).url
    wrong = url.replace(public_of(secret), public_of(new_secret()))
    with pytest.raises(Unreachable, match=r"\?curve="):
        transport().connect(wrong).ask(request(20), idle=WAIT).result(WAIT)
    assert not echo.heads


def test_no_curve_at_a_listener_that_wants_it(transport, echo, secret):
    """Plain text at an encrypted door is not let in, and the other way round neither."""
    url = transport(key=secret).listen("zmq+tcp://127.0.0.1:0", echo).url
    with pytest.raises(Unreachable, match="handshake"):
        transport(curve=False).connect(url.partition("?")[0]).ask(request(20), idle=WAIT).result(WAIT)
    plain = transport(curve=False).listen("zmq+tcp://127.0.0.1:0", echo).url
    with pytest.raises(Unreachable, match="handshake"):
        transport().connect(f"{plain}?curve={public_of(secret)}").ask(request(20), idle=WAIT).result(WAIT)
    assert not echo.heads


def test_fault_37_a_client_that_is_not_on_the_list_is_refused(transport, echo, secret):
    """With the option 'clients' only those may connect; others learn it as a refusal that only a person can end."""
    friend = new_secret()
    url = transport(key=secret, clients=(public_of(friend),)).listen("zmq+tcp://127.0.0.1:0", echo).url
    assert transport(key=friend).connect(url).ask(request(20), idle=WAIT).result(WAIT)
    with pytest.raises(Refused) as caught:
        transport().connect(url).ask(request(20), idle=WAIT).result(WAIT)
    assert caught.value.code == "unauthorized"


def test_the_caller_is_known_by_its_key(transport, echo, secret):
    """A caller's proven identity is its public key, its address the one that it calls from."""
    mine = new_secret()
    url = transport(key=secret).listen("zmq+tcp://127.0.0.1:0", echo).url
    transport(key=mine).connect(url).ask(request(20), idle=WAIT).result(WAIT)
    assert echo.callers[0].identity == public_of(mine)
    assert echo.callers[0].address == "127.0.0.1"


@pytest.mark.parametrize(
    ("url", "listen", "options", "says"),
    [
        ("zmq+tcp://host:1", False, {}, "curve: false"),
        ("zmq+tcp://host:1", True, {}, "dropr keygen zmq"),
        ("zmq+tcp://host", True, {"curve": False}, "port"),
        ("zmq+tcp://*:1", False, {"curve": False}, "no address that can be asked"),
        ("zmq+tcp://host:0", False, {"curve": False}, "no address that can be asked"),
        ("zmq+tcp://host:1?curve=short", False, {}, "no public CURVE key"),
        ("zmq+tcp://host:1?key=x", False, {}, "only one"),
        ("zmq+tcp://host:1/path", True, {"curve": False}, "no paths"),
        ("zmq+tcp://me:pass@host:1", False, {"curve": False}, "credentials"),
        ("zmq+ipc://run/x", False, {}, "three slashes"),
        ("zmq+ipc://*", False, {}, "only where a node listens"),
        ("zmq+ipc:///" + "x" * 120, True, {}, "shorter"),
        ("zmq+inproc://", True, {}, "zmq+inproc://name"),
        ("http://host:1", False, {}, "zmq+tcp://"),
    ],
)
def test_check_explains_what_is_wrong(transport, url, listen, options, says):
    """Each mistake in a url is one sentence that says what would be right."""
    assert says in transport(**options).check(url, listen=listen)


def test_a_secret_key_in_a_url_is_noticed_and_not_repeated(transport):
    """Who puts the secret key where the public one belongs is warned."""
    text = transport().check(f"zmq+tcp://host:1?curve={new_secret()}", listen=False)
    assert "secret" in text
    assert new_secret()[:20] not in text
