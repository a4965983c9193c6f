"""Post on a USB stick: two nodes that never see each other, and somebody who carries a folder between them."""

import threading
import types

import pytest

from dropr_core.cli.new import render
from dropr_core.testing import NodeCase, check
from dropr_core.testing.node_rig import Rig


@pytest.fixture
def folder():
    """The transport over a folder that `dropr new plugin` writes."""
    texts = render("transport", "folder")
    module = types.ModuleType("dropr_transport_folder")
    exec(compile(texts["dropr_transport_folder/__init__.py"], "dropr_transport_folder", "exec"), module.__dict__)
    return module


def test_messages_and_receipts_travel_by_stick(folder, tmp_path):
    """What was sent before and between the journeys arrives once and in order, and the receipts come home."""
    from dropr_core.builtin.memory import MemoryStorage

    here, there, stick = tmp_path / "here", tmp_path / "there", tmp_path / "stick"
    for place in (here, there, stick / "ware"):
        place.mkdir(parents=True)
    case = NodeCase(
        MemoryStorage, lambda: folder.FolderTransport(folder.Options(patience=600)), f"folder://{there}/stick/ware"
    )
    rig = Rig(case, tmp_path / "nodes")
    pause, journeys = threading.Event(), 0
    try:
        rig.open("ware", "door")
        rig.url = f"folder://{here}/stick/ware"
        rig.open("reader", "shop", "daemon")
        rig.send(20)
        while not rig.settled():
            assert journeys < 60, "it does not get there"
            for machine in (here, there):
                stick.rename(machine / "stick")
                pause.wait(0.1)  # the stick is in the machine for a moment
                (machine / "stick").rename(stick)
                rig.healthy()
            journeys += 1
            if journeys == 2:
                rig.send(5)
        rig.look()
        assert check(rig.history) == []
        assert rig.arrived == set(rig.sent)
        assert len(rig.sent) == 25
    finally:
        rig.close()
