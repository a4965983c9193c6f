"""A document that is replaced only by who has seen it as it is, in files and in a store that machines share."""

import threading

import pytest

from dropr_core.api.stored_documents import StoredDocuments
from dropr_core.errors import StoreCorrupt
from dropr_core.system.clock import SystemClock
from dropr_core.system.shared_document import FileDocuments, Form
from dropr_core.testing.shared_memory import World

FORM: Form[list[int]] = Form(lambda document: [int(one) for one in document], lambda value: value, list, "remove it")


@pytest.fixture(params=["files", "store"])
def place(request, tmp_path):
    """Makes documents as one process more sees them, and something to spoil one with."""
    if request.param == "files":
        return lambda: FileDocuments(tmp_path), lambda name, data: (tmp_path / name).write_bytes(data)
    world = World()

    def spoil(name, data):
        line = world.machine()
        found = line.load(name)
        assert line.replace(name, data, found.version if found else 0)

    return lambda: StoredDocuments(world.machine(), SystemClock()), spoil


def test_only_who_saw_it_as_it_is_replaces_it(place):
    """A second one, who saw it earlier, changes nothing; also of a document that was not there, or is no more."""
    one, two = (place[0]().document("a.json", FORM) for _ in range(2))
    missing = one.see()
    assert (missing.value, missing.trouble) == ([], None)
    assert two.replace(two.see(), [1])
    assert not one.replace(missing, [2])
    seen = one.see()
    assert seen.value == [1]
    assert one.replace(seen, [2])
    assert not two.replace(seen, [3])
    assert one.see().value == two.look(now=True) == [2]
    seen = one.see()
    two.remove()
    assert not one.replace(seen, [4])
    assert one.look(now=True) == []


def test_one_that_cannot_be_read_is_seen_and_replaced(place):
    """As a missing one, with the reason; not if somebody has mended it meanwhile."""
    make, spoil = place
    one, two = (make().document("a.json", FORM) for _ in range(2))
    spoil("a.json", b"\xff\xfe no list")
    seen, too = one.see(), two.see()
    assert seen.value == []
    assert isinstance(seen.trouble, StoreCorrupt)
    assert one.replace(seen, [1])
    assert not two.replace(too, [2])
    assert two.see().value == [1]


def test_of_many_at_once_one_replaces_it(place):
    """Each adds a number until it gets through: none is lost."""
    make, _ = place

    def add(number):
        document = make().document("a.json", FORM)
        while not document.replace(seen := document.see(), [*seen.value, number]):
            pass

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(make().document("a.json", FORM).look(now=True)) == list(range(8))
