"""Where doors listen."""

import socket

from dropr_core.system.address import bind, read_address


def test_small_answers_do_not_wait():
    """A connection sends each write at once: asyncio sees to it for sockets that name their protocol."""
    address = read_address("tcp://127.0.0.1:0", ("tcp",))
    assert not isinstance(address, str)
    with bind(address) as bound:
        assert bound.proto == socket.IPPROTO_TCP
