"""A request is judged once, and again whenever that judgement may not hold any more."""

import pytest
from support.one_node import open_node
from support.world import KEY

from dropr_core.contracts.transport import Caller
from dropr_core.errors import Refused
from dropr_core.protocol import endpoint as module
from dropr_core.protocol import greeting
from dropr_core.protocol import messages as wire
from dropr_core.protocol.access import Access
from dropr_core.protocol.frames import REQUEST, FrameHeader, request_id, seal

CALLER = Caller("test")


@pytest.fixture
def endpoint(tmp_path):
    """Of a node that knows one peer."""
    with open_node(tmp_path, peers={"ware": {"mode": "pull", "key": KEY.decode()}}, groups={}) as node:
        yield module.Endpoint("shop", b"n" * 16, {"ware": Access((KEY,))}, node.outbox, node.inbox)


@pytest.fixture
def judged(monkeypatch):
    """How often."""
    calls, authenticate = [], module.authenticate

    def counting(*what):
        calls.append(what)
        return authenticate(*what)

    monkeypatch.setattr(module, "authenticate", counting)
    return calls


def hello(key=KEY):
    header = FrameHeader("ware", "shop", request_id(), wire.HELLO, b"", counter=1)
    return seal(REQUEST, header, wire.encode(greeting.hello(b"w" * 16)), key)[0]


def admit(endpoint, frame):
    return endpoint.admit(frame[: endpoint.head_size], CALLER)


def test_what_was_admitted_a_moment_ago_is_not_judged_again(endpoint, judged):
    """One signature for a request that is admitted and opened."""
    frame = hello()
    assert admit(endpoint, frame) == len(frame)
    assert endpoint.open(frame, CALLER).peer == "ware"
    assert len(judged) == 1


def test_another_request_is_judged_by_itself(endpoint, judged):
    """What was admitted last says nothing of any other bytes."""
    first, second, forged = hello(), hello(), hello(b"x" * 40)
    admit(endpoint, first)
    assert endpoint.open(second, CALLER).peer == "ware"
    with pytest.raises(Refused, match="not signed"):
        endpoint.open(forged, CALLER)
    assert len(judged) == 3


def test_a_changed_body_is_refused_although_its_head_was_admitted(endpoint):
    """The head vouches for the body, which is compared each time."""
    frame = hello()
    admit(endpoint, frame)
    with pytest.raises(Refused):
        endpoint.open(frame[:-1] + bytes([frame[-1] ^ 1]), CALLER)


def test_after_the_configuration_was_read_again_it_is_judged_anew(endpoint):
    """Who was removed is not let in by what was judged before."""
    frame = hello()
    admit(endpoint, frame)
    endpoint.access = {}
    with pytest.raises(Refused, match="no such pair"):
        endpoint.open(frame, CALLER)
