"""The short cut of `send`: a header encoded once for all messages of a route."""

from hypothesis import given
from hypothesis import strategies as st

from dropr_core import envelope
from dropr_core.message import Message

messages = st.builds(
    Message,
    id=st.binary(min_size=16, max_size=16),
    sender=st.sampled_from(["shop", "a", "n" * 64]),
    channel=st.sampled_from(["orders", "default", "x.y-z"]),
    priority=st.integers(0, 9),
    content_type=st.sampled_from(["application/octet-stream", "application/json", "text/plain; charset=utf-8"]),
    receipt=st.booleans(),
    delay=st.none() | st.floats(0, 1e6),
    expires_in=st.none() | st.floats(0, 1e6),
    created_at=st.floats(1, 4e9),
)


@given(messages, st.binary(max_size=300), st.binary(min_size=16, max_size=16), st.floats(1, 4e9))
def test_a_stencil_makes_the_very_bytes_that_encode_makes(message, body, other, moment):
    """Whatever a route says and whatever id, time and body are filled in: no byte differs from `encode`."""
    stencil = envelope.Stencil(message)
    assert stencil.fill(message.id, message.created_at, body) == envelope.encode(message, body)
    filled = envelope.decode(stencil.fill(other, moment, body))
    assert (filled.message.id, filled.message.created_at, filled.body) == (other, moment, body)
