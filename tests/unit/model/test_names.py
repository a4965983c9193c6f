"""What may be called what, and identities: names, priorities, lanes, ids that stand for a key."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropr_core.errors import BadName, UsageError
from dropr_core.model.names import (
    START,
    Head,
    Lane,
    SourceLane,
    StoreId,
    check_channel,
    check_lane_priority,
    check_name,
    check_priority,
    format_id,
    id_of_key,
    lane_priority,
    parse_id,
    priority_of,
)


@pytest.mark.parametrize("name", ["a", "orders", "orders/eu.new_1-2", ".a/b..", "9" * 200])
def test_a_channel_may_have_this_name(name):
    """Segments between slashes, each of letters, digits and the usual signs."""
    assert check_channel(name) == name


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "ä", "/", "a//b", "/a", "a/", "..", "a/./b", "a\n", "a\0", "x" * 201, None, b"orders", 7]
)
def test_a_channel_may_not_have_this_name(name):
    """The error says which name, and what is allowed."""
    with pytest.raises(BadName, match=r"1 to 200 characters of A-Z a-z 0-9 \. _ - in segments"):
        check_channel(name)


@pytest.mark.parametrize("name", ["", ".hidden", "-option", "_x", "a/b", "..", "a b", "x" * 65, "a\n", None])
def test_a_node_may_not_have_this_name(name):
    """Nothing that a shell or a file system takes for something else."""
    with pytest.raises(BadName, match=r"peer .*beginning with a letter or digit"):
        check_name(name, "peer")


def test_a_node_may_have_an_ordinary_name():
    """Letters, digits, and the usual signs after the first."""
    assert [check_name(name) for name in ("shop", "9", "Shop-2.berlin_x", "x" * 64)]


@pytest.mark.parametrize("priority", [-1, 10, 5.0, True, "5", None])
def test_a_priority_is_a_whole_number_from_0_to_9(priority):
    """True is no number here, and 5.0 is not either: they would be another lane elsewhere."""
    with pytest.raises(UsageError, match=r"from 0 .first. to 9"):
        check_priority(priority)


@given(st.integers(0, 9), st.booleans())
def test_large_bodies_have_lanes_of_their_own_with_the_same_priority(priority, large):
    """And one number tells both."""
    number = check_lane_priority(lane_priority(check_priority(priority), large=large))
    assert priority_of(number) == priority
    assert Lane("ware", "orders", number).large is large
    assert SourceLane("shop", StoreId(bytes(8)), "orders", number).large is large


@pytest.mark.parametrize("priority", [-1, 20])
def test_no_lane_has_this_priority(priority):
    """Whatever a peer says."""
    with pytest.raises(UsageError):
        check_lane_priority(priority)


@given(st.binary(min_size=16, max_size=16))
def test_an_id_is_read_in_each_of_its_forms(data):
    """Bytes, UUID and text, with or without hyphens, in any case."""
    text = format_id(data)
    assert text == str(uuid.UUID(bytes=data))
    for form in (data, uuid.UUID(bytes=data), text, text.upper(), text.replace("-", "")):
        assert parse_id(form) == data


@pytest.mark.parametrize("value", ["", "order 7", b"short", bytes(17), 7, None])
def test_what_is_no_id_is_told_the_way_for_keys(value):
    """Who has a key of his own wants `dedup_key`."""
    with pytest.raises(UsageError, match="dedup_key="):
        parse_id(value)


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_key_stands_for_one_id_of_its_sender_and_channel(one, other):
    """The same key is the same id everywhere and always; another key, channel or sender is another."""
    identity = id_of_key("shop", "orders", one)
    assert identity == id_of_key("shop", "orders", one)
    assert uuid.UUID(bytes=identity).version == 8
    assert len({identity, id_of_key("ware", "orders", one), id_of_key("shop", "news", one)}) == 3
    assert (identity == id_of_key("shop", "orders", other)) == (one == other)


@pytest.mark.parametrize("key", [7, b"bytes", "half \ud800 of a pair"])
def test_a_key_is_a_text_that_can_be_sent(key):
    """Another process must get the same id from it."""
    with pytest.raises(UsageError, match="dedup_key"):
        id_of_key("shop", "orders", key)


def test_positions_and_lanes_read_well_in_a_log():
    """Peer, channel and priority; number and id."""
    assert str(Lane("ware", "orders", 5)) == "ware:orders:5"
    assert str(SourceLane("shop", StoreId(b"\1" * 8), "orders", 15)) == "shop(0101010101010101):orders:15"
    assert str(Head(7, bytes(16))) == "7/00000000-0000-0000-0000-000000000000"
    assert START < Head(1, bytes(16)) < Head(2, bytes(16))
