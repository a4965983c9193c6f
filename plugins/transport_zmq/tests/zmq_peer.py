"""A bare ROUTER as a peer: where it listens, and what comes to it."""

import zmq
from dropr_transport_zmq.frames import unpack

WAIT = 30.0


def url_of(router):
    """Where a bare router listens."""
    return "zmq+" + router.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()


def get(router):
    """The next message at a bare router: who, head, payload."""
    who, head, payload = router.recv_multipart()
    return who, unpack(head), payload
