"""The codec: what is encoded is read again in any pieces, and what is no frame is refused before it costs memory."""

import pytest
from dropr_gateway_stomp.frames import Beat, Frame, FrameReader, Limits, ProtocolError, Version, encode, unescape
from hypothesis import given
from hypothesis import strategies as st

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
NAME = TEXT.filter(bool)
PLAIN = st.text(st.sampled_from("abc-é x"), min_size=1, max_size=9).map(str.strip).filter(bool)


def read(data, version=None, pieces=(), **limits):
    reader = FrameReader(Limits(**limits))
    reader.version = version
    found, at = [], 0
    for size in [*pieces, len(data)]:
        reader.feed(data[at : at + size])
        at += size
        while (one := reader.next()) is not None:
            found.append(one)
    return found


@given(
    version=st.sampled_from([Version.V11, Version.V12]),
    headers=st.dictionaries(NAME, TEXT, max_size=5),
    body=st.binary(max_size=60),
    pieces=st.lists(st.integers(1, 7), max_size=60),
    beats=st.integers(0, 2),
)
def test_what_is_encoded_is_read_again(version, headers, body, pieces, beats):
    """Any header and any body survive, however the stream is cut."""
    headers.pop("content-length", None)
    if version is Version.V11:  # a carriage return at the end of a line belongs to the value there
        headers = {name: value for name, value in headers.items() if "\r" not in name}
    frame = encode("SEND", [*headers.items(), ("content-length", str(len(body)))], body, version)
    found = read(b"\n" * beats + frame + b"\r\n" + frame, version, pieces)
    wanted = Frame("SEND", headers | {"content-length": str(len(body))}, body)
    assert found == [Beat.BEAT] * beats + [wanted, Beat.BEAT, wanted]


@given(
    headers=st.dictionaries(PLAIN, PLAIN, max_size=5), body=st.binary(max_size=60).filter(lambda one: b"\0" not in one)
)
def test_version_1_0_has_no_escapes(headers, body):
    """Its headers travel as they are, its bodies up to the NUL."""
    headers.pop("content-length", None)
    assert read(encode("SEND", headers.items(), body, Version.V10), Version.V10) == [Frame("SEND", headers, body)]


@given(st.binary(max_size=200), st.lists(st.integers(1, 9), max_size=40), st.sampled_from([None, *Version]))
def test_any_bytes_are_read_or_refused(data, pieces, version):
    """No bytes make anything but frames, beats or ProtocolError."""
    try:
        read(data, version, pieces, body=50)
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"SEND\n" + b"a" * 200, "may have 100 bytes"),
        (b"S" * 200, "may have 100 bytes"),
        (b"SEND\n" + b"a:b\n" * 11, "10 header lines"),
        (b"SEND\n" + (b"a:" + b"b" * 90 + b"\n") * 4, "300 bytes together"),
        (b"SEND\ncontent-length:51\n\n", "50 bytes here"),
        (b"SEND\n\n" + b"x" * 51, "50 bytes here"),
        (b"SEND\n\n" + b"x" * 51 + b"\0", "50 bytes here"),
        (b"SEND\ncontent-length:-1\n\n", "must be a number"),
        (b"SEND\ncontent-length:1_0\n\n", "must be a number"),
        (b"SEND\ncontent-length:99999999999999999999\n\n", "must be a number"),
        (b"SEND\ncontent-length:2\n\nabc\0", "no NUL"),
        (b"SEND\nabc\n\n\0", "NAME:VALUE"),
        (b"SEND\n:abc\n\n\0", "NAME:VALUE"),
        (b"SEND\na:\\t\n\n\0", "no escape"),
        (b"SEND\na:x\\\n\n\0", "no escape"),
        (b"SEND\na:\xff\n\n\0", "UTF-8"),
        (b"\0", "NUL"),
        (b"GET / HTTP/1.1\r\n\r\n\0", ""),
    ],
)
def test_what_is_over_a_limit_or_no_frame_is_refused(data, says):
    """Each limit holds, also for a frame whose end has not come; the text says what is wrong."""
    if not says:
        assert read(data, Version.V12)[0].command == "GET / HTTP/1.1"  # the session refuses it
        return
    for pieces in ([], [1] * len(data)):
        with pytest.raises(ProtocolError, match=says):
            read(data, Version.V12, pieces, line=100, lines=10, headers=300, body=50)


def test_the_first_value_of_a_repeated_header_counts():
    """As the specification says."""
    assert read(b"SEND\na:1\na:2\n\n\0", Version.V12)[0].headers == {"a": "1"}


def test_a_connect_frame_is_not_unescaped():
    """Its sender may speak 1.0 only."""
    assert read(b"CONNECT\npasscode:a\\nb\r\n\r\n\0")[0].headers == {"passcode": "a\\nb"}


def test_a_carriage_return_is_a_part_of_the_value_in_1_1_alone():
    """1.2 ends lines with it, 1.0 is trimmed as its implementations did."""
    found = [
        read(b"SEND\na: b\r\n\n\0", version)[0].headers["a"] for version in (Version.V10, Version.V11, Version.V12)
    ]
    assert found == ["b", " b\r", " b"]


def test_a_header_cannot_break_out_of_its_line_in_1_0():
    """What 1.0 cannot say is replaced: nobody forges headers or frames with a line feed or a NUL."""
    data = encode("MESSAGE", [("a:b", "c\nd:e\0MESSAGE")], b"", Version.V10)
    assert data == b"MESSAGE\na_b:c d:e MESSAGE\n\n\0"
    assert encode("MESSAGE", [("a", "b\0")], b"", Version.V12) == b"MESSAGE\na:b \n\n\0"


def test_a_body_that_comes_in_small_pieces_is_looked_at_once():
    """The work for a body without a length grows with its size, not with its square."""
    reader = FrameReader()
    reader.feed(b"SEND\ndestination:/queue/a\n\n")
    assert reader.next() is None
    for _ in range(200):
        reader.feed(b"x" * 1000)
        assert reader.next() is None
    assert reader._seen == reader.waiting == 200_000
    reader.feed(b"\0")
    assert len(reader.next().body) == 200_000
    assert reader.waiting == 0


@given(TEXT, st.sampled_from([Version.V11, Version.V12]))
def test_unescaping_never_invents(text, version):
    """A text without a backslash is itself."""
    plain = text.replace("\\", "")
    assert unescape(plain, version) == plain
