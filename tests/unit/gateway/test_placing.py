"""Parcels of dialects as messages: those that are made alike are composed from a form, and nobody can tell."""

import attrs
import pytest

from dropr_core.api.runtime import Runtime
from dropr_core.config.node import from_mapping
from dropr_core.contracts.parcels import Parcel
from dropr_core.errors import BadName, TooBig, UsageError
from dropr_core.gateway import placing
from dropr_core.gateway.placing import Local, Placer
from dropr_core.model import envelope

NODE = {
    "node": "kit", "storage": "memory", "limits": {"min_free": 0, "max_body": "1000B", "inline_body": "1KiB"},
    "peers": {"far": {"mode": "pull", "key": "k" * 40}}, "channels": {"out": {"to": "far"}},
}  # fmt: skip
ALIKE = [
    Parcel(channel="mail", body=b"x"),
    Parcel(channel="mail", body=b"x", rank=7, delay=3, headers={"x-ttr": "60"}, content_type="text/plain"),
    Parcel(channel="mail", body=b"x", expires_in=9.5, receipt=True),
    Parcel(channel="out", body=b"x", headers={"a": "b", "c": "d"}, receipt=True),
    Parcel(channel="mail", body=b"x", to="far"),
]


@pytest.fixture
def placer(tmp_path):
    """Of a node in memory."""
    with Runtime.open(from_mapping(NODE, tmp_path)) as runtime:
        yield Placer(runtime)


def facts(made):
    """All that is stored, but for what must differ."""
    one = made.job if isinstance(made, Local) else made.message
    opened = envelope.decode(one.envelope)
    assert opened.message.id == one.id
    assert opened.message.created_at > 0
    header = {name: getattr(opened.message, name) for name in opened.message.__struct_fields__}
    plain = one._replace(id=b"", envelope=b"")
    rest = (made.channel, made.priority, made.unique, made.written) if isinstance(made, Local) else (made.written,)
    return plain, rest, header | {"id": b"", "created_at": 0}, opened.body


@pytest.mark.parametrize("parcel", ALIKE)
def test_what_is_put_again_and_again_is_composed_as_the_first_was(placer, parcel):
    """The third of a kind comes from a form: the same facts as the first, another id, its own body."""
    made = [placer.compose(attrs.evolve(parcel, body=b"%d" % number)) for number in range(4)]
    assert len(placer._forms) == 1
    told = [facts(one) for one in made]
    assert [one[-1] for one in told] == [b"0", b"1", b"2", b"3"]
    assert all(one[:-1] == told[0][:-1] for one in told)
    assert len({(one.job if isinstance(one, Local) else one.message).id for one in made}) == 4


def test_a_form_is_of_all_that_a_parcel_says(placer):
    """Parcels that differ in anything but their body never share a form."""
    for _ in range(3):
        for parcel in ALIKE:
            assert facts(placer.compose(parcel)) == facts(placer._compose(parcel))
    assert len(placer._forms) == len(ALIKE)


def test_limits_hold_for_what_comes_from_a_form_too(placer):
    """A body over limits.max_body is refused, whether its kind was put before or not; a bad name is, each time."""
    for _ in range(3):
        placer.compose(Parcel(channel="mail", body=b"x" * 1000))
    with pytest.raises(TooBig):
        placer.compose(Parcel(channel="mail", body=b"x" * 1001))
    for _ in range(3):
        with pytest.raises(BadName):
            placer.compose(Parcel(channel="no channel", body=b""))


def test_what_programs_say_fills_no_memory(placer, monkeypatch):
    """Headers that differ each time make no forms, long ones neither, and there are never more than so many."""
    monkeypatch.setattr(placing, "FORMS", 10)
    for number in range(100):
        placer.compose(Parcel(channel="mail", body=b"", headers={"trace": str(number)}))
    assert (len(placer._forms), len(placer._once) <= 10) == (0, True)
    for _ in range(3):
        placer.compose(Parcel(channel="mail", body=b"", headers={"long": "x" * 2000}))
    assert not placer._forms
    for number in range(100):
        for _ in range(2):
            placer.compose(Parcel(channel=f"mail.{number}", body=b""))
    assert len(placer._forms) <= 10


def test_a_header_that_says_what_stands_for_an_id_is_stored_as_it_is(placer):
    """The text that marks the gap of a form is no form's header: such a message is composed each time anew."""
    parcel = Parcel(channel="mail", body=b"x", headers={"odd": "\x00id of the mail\x00"})
    for _ in range(3):
        made = placer.compose(parcel)
        assert envelope.decode(made.job.envelope).message.headers == parcel.headers
    assert not placer._forms


def test_a_text_that_looks_like_a_gap_is_refused_by_a_template(placer):
    """Whoever makes a template hears that it cannot be one."""
    (made,) = [placer.compose(Parcel(channel="mail", body=b"", headers={"odd": "\x00id of the mail\x00"}))]
    with pytest.raises(UsageError, match="stands for"):
        envelope.EnvelopeTemplate(envelope.header_of(made.job.envelope))
