"""Ids of an inbox that were brought to their order by a migration, or that a disk has damaged."""

import pytest

pytest.importorskip("apsw")
import apsw
from dropr_storage_sqlite.engine import rising, schema
from dropr_storage_sqlite.fsck.findings import ContentCheck
from dropr_storage_sqlite.fsck.inbox import check_inbox
from dropr_storage_sqlite.inbox import sql
from rising_inbox_rig import SPACING, Keeper, check, context_of, listed

from dropr_core.model.names import IdMaker
from dropr_core.system.clock import FakeClock


def test_a_store_of_version_2_is_brought_to_the_order_of_its_ids(tmp_path):
    """What rises becomes unlisted, between milestones; the rest is listed, and all is found."""
    make, path, used, lists = IdMaker(), tmp_path / "inbox.db", [], list[bool]()
    connection = apsw.Connection(str(path))
    for step in schema.INBOX.steps[:2]:
        connection.execute(step)
    connection.execute("INSERT INTO sender(sender, name) VALUES(1, 'shop')")
    for queue, count in ((1, 700), (2, 10), (rising.RISING + 1, 8)):
        some = [make() for _ in range(count)]
        some[5], some[7] = some[7], some[5]
        some[4] = bytes(6) + b"\x40" + bytes([queue % 256]) * 9
        connection.execute("INSERT INTO queue(queue, channel, priority, ready, bytes) VALUES(?, ?, 5, ?, ?)",
                           (queue, f"c{queue}", count, count))  # fmt: skip
        for at, one in enumerate(some, 1):
            values = (sql.pack(queue, len(used) + 1), one, 1, 1.0, sql.DUPLICATE if at % 9 == 0 else 0, 1, b"x")
            connection.execute("INSERT INTO message VALUES(?, ?, ?, ?, ?, ?, NULL, NULL, ?)", values)
            used.append(one)
            lists.append(at in {5, 7, 8} or queue > rising.RISING)  # the eighth came before two
    connection.execute("UPDATE meta SET value = ? WHERE key = 'last'", (len(used),))
    schema.take_steps(connection, schema.INBOX, 2)
    assert connection.execute("SELECT count(*) FROM milestone").fetchall() == [(10,)]
    flags = [row[0] for row in connection.execute("SELECT flags FROM message ORDER BY place")]
    assert [bool(one & sql.APART) for one in flags] == lists
    connection.close()
    check(path, used, context_of(tmp_path, FakeClock()))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("UPDATE message SET id = zeroblob(16) WHERE place = (SELECT max(place) FROM message)", "out of the order"),
        ("UPDATE milestone SET id = (SELECT max(id) FROM message)", "out of the order"),
        ("DELETE FROM milestone", "too few milestones"),
        ("UPDATE queue SET queue = 300; UPDATE message SET place = place + (299 << 44)", "out of the order"),
    ],
)
def test_ids_that_cannot_be_found_are_listed(narrow_inbox, tmp_path, damage, told):
    """A check sees it, and its repair brings everything that waits there into the index; what comes then rises."""
    keeper = Keeper(tmp_path)
    keeper.puts(1, 4 * SPACING + 2)
    connection = apsw.Connection(str(keeper.inbox.engine.path))
    connection.execute(damage)
    for repair in (False, True):
        checking = ContentCheck("inbox", connection, keeper.context, repair=repair)
        check_inbox(checking)
        assert [told in one.text for one in checking.findings] == [True], checking.findings
    count = listed(keeper)
    keeper.puts(1, 5)
    assert listed(keeper) == count + (5 if "300" in damage else 0)
    used = [bytes(identity) for (identity,) in connection.execute("SELECT id FROM message")]
    connection.close()
    check(keeper.inbox.engine.path, used, keeper.context)
    keeper.storage.close()
