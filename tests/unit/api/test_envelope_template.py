"""The short cut of `send`: a header encoded once for all messages of a route."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dropr_core.model import envelope
from dropr_core.model.message import Message

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
    template = envelope.EnvelopeTemplate(message)
    assert template.fill(message.id, message.created_at, body) == envelope.encode(message, body)
    filled = envelope.decode(template.fill(other, moment, body))
    assert (filled.message.id, filled.message.created_at, filled.body) == (other, moment, body)


@given(messages, st.lists(st.binary(max_size=40), max_size=6), st.floats(1, 4e9))
def test_many_are_filled_in_with_the_very_bytes_of_each(message, bodies, moment):
    """Whatever the sizes of their bodies are, and in which order: each envelope is that of `fill`."""
    template = envelope.EnvelopeTemplate(message)
    ids = [bytes([number]) * 16 for number in range(len(bodies))]
    wanted = [template.fill(one, moment, body) for one, body in zip(ids, bodies, strict=True)]
    assert template.fill_all(ids, moment, bodies) == wanted


@given(messages, st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.data())
def test_a_likeness_recognises_what_is_sound_and_made_alike_and_nothing_else(message, bodies, data):
    """Ids are those that the headers say; an altered byte, another header, too large a body, no time: none at all."""
    message = msgspec.structs.replace(message, created_at=1.7e9)
    template = envelope.EnvelopeTemplate(message)
    made = [template.fill(bytes([n]) * 16, 1.7e9 + n, body) for n, body in enumerate(bodies)]
    like = envelope.UniformBatch(template.fill(message.id, message.created_at, b"first"))
    assert like.message == message
    if not like.usable:  # an id that looks like a part of the header, by bad luck
        return
    assert like.ids(made, 300) == [envelope.header_of(one).id for one in made]
    at = data.draw(st.integers(0, len(made[-1]) - 1))
    bad = made[-1][:at] + bytes([made[-1][at] ^ data.draw(st.integers(1, 255))]) + made[-1][at + 1 :]
    never = template.fill(message.id, float("nan"), b"x")
    for other in (bad, made[-1][:at], made[-1] + b"\0", b"", never):
        assert like.ids([*made, other], 300) is None
    other = msgspec.structs.replace(message, key="k")
    assert like.ids([*made, envelope.encode(other, b"x")], 300) is None
    assert like.ids([template.fill(message.id, 1.7e9, b"x" * 9)], 8) is None


@given(st.lists(st.tuples(messages, st.binary(max_size=40)), min_size=1, max_size=6), st.booleans(), st.data())
def test_many_are_sound_if_and_only_if_each_is(pairs, alike, data):
    """A byte altered, taken away or added in any of them, alike or not, is found as `check` finds it."""
    made = [envelope.encode(pairs[0][0] if alike else message, body) for message, body in pairs]
    assert envelope.are_sound(made)
    which = data.draw(st.integers(0, len(made) - 1))
    at = data.draw(st.integers(0, len(made[which]) - 1))
    put = data.draw(st.binary(max_size=2))
    made[which] = made[which][:at] + put + made[which][at + 1 :]

    def sound(one):
        try:
            envelope.check(one)
        except envelope.BadEnvelope:
            return False
        return True

    assert envelope.are_sound(made) == all(map(sound, made))
