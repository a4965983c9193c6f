"""Files of the storage that are not what they should be: flipped bits, lost halves and segments, newer stores."""

import shutil

import pytest
from dropr_storage_fs.files import log as log_module
from fs_trouble_rig import came, identity, push, queued, send

from dropr_core.errors import StoreGone, StoreTooNew


def damaged(opener, tmp_path, pattern, offsets):
    """For each offset: a copy of a store of 12 messages a half with that byte flipped, opened again."""
    storage = opener(tmp_path / "whole") if (tmp_path / "whole").mkdir() is None else None
    for number in range(1, 13):
        send(storage, number)
        push(storage, number, number)
    storage.close()
    (place,) = (tmp_path / "whole").glob(pattern)
    name, data = place.relative_to(tmp_path / "whole"), place.read_bytes()
    for offset in offsets(data):
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "whole", copy)
        (copy / name).write_bytes(data[:offset] + bytes([data[offset] ^ 0x41]) + data[offset + 1 :])
        yield offset, opener(copy)
        shutil.rmtree(copy)


@pytest.mark.parametrize("half", ["outbox", "inbox"])
def test_fault_52_a_flipped_bit_in_a_log_costs_that_record_alone_and_is_named(half, opener, tmp_path, events):
    """Wherever it is: the store opens, all other messages are read, in order, and an event names the file."""
    pattern = f"{half}/logs/00000/*.seg"

    def offsets(data):
        return range(64, len(data.rstrip(b"\0")), 13)

    for offset, storage in damaged(opener, tmp_path, pattern, offsets):
        events.clear()
        there = queued(storage) if half == "outbox" else came(storage)
        assert there == sorted(there)
        missing = set(range(1, 13)) - set(there)
        assert len(missing) <= 1, f"offset {offset}: {missing} are gone"
        if missing:
            storage.close()
            again = opener(tmp_path / "copy")
            assert len(queued(again) if half == "outbox" else came(again)) == 11, "the second opening sees less"
            again.close()
            storage = opener(tmp_path / "copy")  # noqa: PLW2901
        if missing and missing != {12}:
            assert any(name == "corrupt" and half in details["file"] for name, details in events), f"offset {offset}"
        send(storage, 13)
        assert push(storage, 13, 13).taken or 12 in missing
        assert queued(storage)[-1] == 13
        storage.close()


def test_fault_52_a_flipped_bit_in_a_journal_costs_no_message(opener, tmp_path, events):
    """A journal with damage in its middle still tells the rest, and every message is there."""
    storage = opener(tmp_path / "whole") if (tmp_path / "whole").mkdir() is None else None
    send(storage, 1, peers=("there", "other"))
    for number in range(2, 7):
        send(storage, number)
    for number in (2, 3):
        storage.outbox.cancel(identity(number))
    push(storage, 1, 3)
    storage.close()
    (place,) = (tmp_path / "whole").glob("outbox/journal.*")
    data = place.read_bytes()
    for offset in range(32, len(data), 7):
        events.clear()
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "whole", copy)
        (copy / place.relative_to(tmp_path / "whole")).write_bytes(
            data[:offset] + bytes([data[offset] ^ 0x41]) + data[offset + 1 :]
        )
        try:
            again = opener(copy)
        except Exception as error:
            raise AssertionError(f"offset {offset} of {len(data)}") from error
        assert {4, 5, 6} <= set(queued(again)), f"offset {offset}: {queued(again)}"
        assert any(name in {"corrupt", "torn"} for name, _ in events), f"offset {offset}: nobody was told"
        again.close()
        shutil.rmtree(copy)


def test_fault_81_a_newer_store_is_refused_untouched(opener, tmp_path):
    """A journal of a later version is refused with a clear text and not changed."""
    from dropr_storage_fs.engine import journal

    opener().close()
    (place,) = tmp_path.glob("inbox/journal.*")
    data = bytearray(place.read_bytes())
    data[8] = 9
    end = journal.START.size
    data[end - 4 : end] = journal.crc32(data[: end - 4]).to_bytes(4, "little")
    place.write_bytes(data)
    with pytest.raises(StoreTooNew, match="9"):
        opener()
    assert place.read_bytes() == data


def test_fault_12_a_half_that_is_gone_is_not_made_anew(opener, tmp_path):
    """A removed directory is said, when opening and while open, and never healed by an empty one."""
    storage = opener()
    send(storage, 1)
    shutil.move(tmp_path / "outbox", tmp_path / "elsewhere")
    with pytest.raises(StoreGone):
        send(storage, 2)
    with pytest.raises(StoreGone):
        opener()
    shutil.move(tmp_path / "elsewhere", tmp_path / "outbox")
    assert queued(opener()) == [1]


def test_the_reading_of_a_log_that_lost_a_segment_goes_on(opener, tmp_path, monkeypatch, events):
    """A segment with a damaged header is named; those before and behind it are read."""
    monkeypatch.setattr(log_module, "SEGMENT_SIZE", 2000)
    storage = opener()
    for number in range(1, 61):
        send(storage, number)
    storage.close()
    places = sorted(tmp_path.glob("outbox/logs/*/*.seg"))
    assert len(places) > 3
    places[1].write_bytes(b"garbage!" + places[1].read_bytes()[8:])
    again = opener()
    there = queued(again)
    assert there[0] == 1
    assert there[-1] == 60
    assert 30 < len(there) < 60
    assert any(name == "corrupt" and places[1].name in details["file"] for name, details in events)
    assert places[1].exists(), "what cannot be read is evidence"
