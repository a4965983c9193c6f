"""A content type means the same however it is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropr_core.model.media_types import parse_media_type

SAME = ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;charset=UTF-8",
        'application/json ; Charset="utf-8"', "application/json;", " application/json ;; charset=us-ascii"]  # fmt: skip


@pytest.mark.parametrize("text", SAME)
def test_case_spaces_and_charset_do_not_matter(text):
    """Whatever way of writing it: JSON in UTF-8."""
    assert parse_media_type(text) == parse_media_type("application/json")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "json",
        "application/",
        "/json",
        "a/b c",
        "a/b; c",
        "a/b; =d",
        'a/b; c="d',
        "a/b, c/d",
        "\u00e4/b",
        "a/b;c=d e",
    ],
)
def test_what_is_no_media_type_is_none(text):
    """Half a type and the like are not guessed at."""
    assert parse_media_type(text) is None


def test_parameters_keep_their_values():
    """Names in any case, values as they are, quoted or not; the first of two counts."""
    found = parse_media_type('text/CSV; Header=Present; q="a\\"b; c"; header=absent; charset=latin1')
    assert (found.name, found.charset) == ("text/csv", "latin1")
    assert dict(found.parameters) == {"header": "Present", "q": 'a"b; c'}
    assert parse_media_type("application/problem+json").suffix == "json"


@pytest.mark.parametrize(
    ("meant", "read", "fits"),
    [
        ("a/b; v=1; x=2", "a/b", True), ("a/b", "a/b; v=1", False), ("a/b; v=1", "a/b; v=1", True),
        ("a/b; v=1", "a/b; v=2", False), ("a/b; charset=latin1", "a/b", False), ("a/c", "a/b", False),
        ("a/b; charset=latin1", "a/b; charset=LATIN1", True),
    ],
)  # fmt: skip
def test_who_reads_a_type_reads_those_that_say_more(meant, read, fits):
    """But never another charset, nor another value of what it names itself."""
    assert parse_media_type(meant).is_read_as(parse_media_type(read)) is fits


@given(st.text(max_size=60))
def test_no_text_breaks_the_reading(text):
    """Content types come from outside."""
    parse_media_type(text)
    parse_media_type("a/b;" + text)
