"""The bytes of a journal are those of docs/formats/fs.md: arrays that begin with a name, in this order for ever."""

from pathlib import Path

import msgspec
import pytest
from dropr_storage_fs.inbox.past_outcomes import PastOutcomes
from dropr_storage_fs.inbox.recovery import InboxModel
from dropr_storage_fs.inbox.remembered import PastJobs
from dropr_storage_fs.outbox.recovery import OutboxModel
from dropr_storage_fs.outbox.remembered import PastDeliveries
from dropr_storage_fs.outbox.retention import Retention

from dropr_core.system.clock import FakeClock
from dropr_core.testing.builders import make_context


def outbox_model():
    context = make_context(Path(), FakeClock())
    retention = Retention(context)
    return OutboxModel(retention, PastDeliveries(Path(), context, retention))


def inbox_model():
    context = make_context(Path(), FakeClock())
    return InboxModel(PastJobs(Path(), context), PastOutcomes(Path(), context))


ID, STORE = b"i" * 16, b"s" * 8
END = [1, 700, 3, 3, 90]

COUNTS = [[[0, "dead", 2, 40]], [[0, 1, 2, 40]]]
BOTH = [
    ["ready"],
    ["lost", 3],
    ["meta", STORE, 7],
    ["end", 0, *END],
    ["run", 7, 3, 0.0, [], [281474976710659], 9.0, 2.0, COUNTS],
    ["unrun", 7],
    ["past", 7, 3.0, COUNTS],
    ["erased", 7, [281474976710659], COUNTS, True],
]
OUTBOX = [
    *BOTH,
    ["lane", 0, "there", "orders", 5],
    ["full_lane", 0, [2, ID, 2, 0, [4], 0, [1], [], 2, 40, 0, 3, [9, 1]], END],
    ["full_lane", 0, [2, ID, 2, 0, [], 0, [], [], 2, 40, 0, 3, []], None],
    ["head", 0, 2, ID, 2, 40],
    ["offer", 0, 3],
    ["known", 0, 3, ID, "accepted", 1.5, 1.0, 1, 20, "", None, "", 1, 64, True],
    ["state", 0, 3, "processed", 2.0, "", b"result", "text/plain"],
    ["moved", 0, 3, 5, 64],
    ["forget", 0, 3],
    ["rewind", 0, 1, ID, [2, 3]],
    ["store", STORE, [[0, 3, [5], 9]]],
    ["peer", "there", True, "why"],
    ["cursor", "there", STORE, 4],
    ["own", ID, b"print", 1.0, [[0, 3]]],
    ["unown", ID],
    ["staged", "4711-0123456789abcdef", 4096],
    ["due", 0, 3, 9.0],
    ["undue", 0, 3],
    ["redriven", 0, 2],
    ["void", 0, 3, 2, 40],
    ["intent", 0, 4, [[ID, 1, b"", b"envelope"]], 1.0, b"call"],
    ["erase", 7, [3]],
]
OLD_OUTBOX = [
    ["full_lane", 0, [2, ID, 2, 0, [4], 0, [1], [9], 2, 40, 0, 3], END],
    ["run", 7, 3, 9.0, [[0, 2]], [281474976710659]],
]
HEAD = ["shop", STORE, "orders", 5, 3, ID]
INBOX = [
    *BOTH,
    ["queue", 0, "orders", 5],
    ["full_queue", 0, [2, 2, 40, [], 1, [4, 2]], END],
    ["task", 3, 0, ID, "shop", "ready", 1, 20, 1.0, None, 1.0, None, 1, 64, 0, [], 1.0, 0.0, b"", "", True, None],
    ["arrived", 0, 3, ID, 33, 1.0, msgspec.msgpack.encode(["shop", "key", 1.0, None]), 20, 1, 64],
    ["move", 3, "leased", 2.0, 1, 1.0, b"token", "worker", "", 0.0, 70_000],
    ["moved", 0, 3, 5, 64],
    ["drop", 3],
    ["front", 0, 4],
    ["claim", b"token", "worker", 0, 4, [3, 2], [3]],
    ["unlease", b"token", [3, 1]],
    ["acked", b"token", 0, [3, 1], 1, 20],
    ["processed", "orders", 1],
    ["outcome", "shop", 1, ID, "processed", "", None, ""],
    ["told", "shop", 1],
    ["outcomes", 7, 1, ["shop"], {"shop": 1}],
    ["head", *HEAD],
    ["true_head", *HEAD],
    ["void", 0, [3, 4], 40],
    ["intent", 0, 4, [[ID, 1, b"", b"envelope"]], 1.0, [HEAD], b"call"],
]


@pytest.mark.parametrize(("model", "ops"), [(outbox_model(), OUTBOX), (inbox_model(), INBOX)], ids=["outbox", "inbox"])
def test_operations_are_read_and_written_as_they_always_were(model, ops):
    """Each operation of a journal is understood, and written again byte for byte."""
    stored = msgspec.msgpack.encode(ops)
    assert msgspec.msgpack.encode(model.decode(stored)) == stored


@pytest.mark.parametrize("model", [outbox_model(), inbox_model()], ids=["outbox", "inbox"])
def test_no_operation_is_missing_above(model):
    """What a journal may hold is what is pinned here."""
    names = {op[0] for op in (OUTBOX if isinstance(model, OutboxModel) else INBOX)}
    known = {kind.__struct_config__.tag for kind in model.operations}
    assert known == names


def test_operations_of_old_are_understood():
    """Operations that had fewer fields in versions 1 and 2 of a journal mean what they meant."""
    state = outbox_model().make_state()
    ops = outbox_model().decode(msgspec.msgpack.encode([["lane", 0, "there", "orders", 5], *OLD_OUTBOX]))
    for op in ops:
        op.apply(state)
    lane = state.numbers[0]
    assert list(lane.voids) == [9]
    assert lane.tally["processed"] == 2
    assert state.runs[7].until == 9.0 + make_context(Path(), FakeClock()).remember
    assert state.runs[7].gone == {281474976710659}
    queue = inbox_model().make_state()
    stored = [["queue", 0, "orders", 5], ["full_queue", 0, [2, 2, 40, [4, 5], 1], END]]
    for op in inbox_model().decode(msgspec.msgpack.encode(stored)):
        op.apply(queue)
    assert list(queue.numbers[0].voids) == [4, 5]


def test_operations_of_an_inbox_without_ranks_are_understood():
    """Messages that were written down before there were ranks have the first one of their priority."""
    state = inbox_model().make_state()
    old = [op[:-1] for op in INBOX if op[0] in {"task", "move"}]
    for op in inbox_model().decode(msgspec.msgpack.encode([["queue", 0, "orders", 5], *old])):
        op.apply(state)
    assert (state.jobs[3].rank, state.rank(state.jobs[3]), state.priority(state.jobs[3])) == (None, 65_536, 5)
