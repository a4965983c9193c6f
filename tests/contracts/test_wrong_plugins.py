"""The kit finds mistakes: each wrong plugin fails in the test that names what is wrong with it.

The plugins stand in wrong_plugins/; each class is the right one with one mistake, and says by which test of
the contract it must be caught. Every one is run by a pytest of its own, inside this process.
"""

import os
import signal
from pathlib import Path

import pytest
from contracts.wrong_plugins import (
    wrong_abilities,
    wrong_asking,
    wrong_bodies,
    wrong_bulk,
    wrong_endings,
    wrong_gateways,
    wrong_handlers,
    wrong_others,
    wrong_serializers,
    wrong_storages,
    wrong_transports,
)

from dropr_core.testing import leaks

pytest_plugins = ["pytester"]

HERE = Path(__file__).parent / "wrong_plugins"
MODULES = (
    wrong_storages,
    wrong_abilities,
    wrong_bulk,
    wrong_bodies,
    wrong_transports,
    wrong_asking,
    wrong_endings,
    wrong_handlers,
    wrong_gateways,
    wrong_serializers,
    wrong_others,
)
CLASSES = [
    (module, name) for module in MODULES for name, cls in vars(module).items()
    if name.startswith("Test") and isinstance(cls, type) and cls.__module__ == module.__name__
]  # fmt: skip
WRONG = [(module, name) for module, name in CLASSES if hasattr(getattr(module, name), "caught_by")]
RIGHT = [(module, name) for module, name in CLASSES if (module, name) not in WRONG]


@pytest.fixture
def soon(monkeypatch):
    """What does not come is given up soon: for plugins of which that is the mistake. The right ones may be slow."""
    for module in ("transport_contract", "transport_long_contract", "echo"):
        monkeypatch.setattr(f"dropr_core.testing.{module}.WAIT", 1.0)


@pytest.fixture
def judge(pytester):
    """Runs a class of a module by a pytest of its own; the tests named ``test``, or all."""
    mine = leaks.holdings().children

    def judge(module, name, test="", *words):
        target = f"{HERE / module.__name__.rpartition('.')[2]}.py::{name}"
        select = ["-k", test] if test else []
        return pytester.runpytest_inprocess(
            target, *select, "-x", "-q", "--timeout=0", "-p", "no:cacheprovider", "--tb=line", *words
        )

    yield judge
    for pid in leaks.holdings().children.keys() - mine:  # what a wrong plugin left behind
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("module", "name"), WRONG, ids=[name for _, name in WRONG])
def test_a_wrong_plugin_fails_in_the_test_that_names_the_mistake(judge, module, name, monkeypatch):
    """The named test fails, and fails itself: it is no error of a fixture. Only what is left open shows after it."""
    wrong = getattr(module, name)
    if getattr(wrong, "leaks", False):
        monkeypatch.setattr(leaks, "MOMENT", 2.0)  # it never comes back
    result = judge(module, name, wrong.caught_by)
    outcome = result.parseoutcomes()
    if getattr(wrong, "leaks", False):
        assert outcome.get("errors") == 1, outcome
        result.stdout.fnmatch_lines("*left open after everything was closed: *")
        return
    assert outcome.get("failed") == 1, outcome
    assert "errors" not in outcome, outcome


@pytest.mark.parametrize(("module", "name"), RIGHT, ids=[name for _, name in RIGHT])
def test_the_same_plugin_without_the_mistake_passes(judge, module, name):
    """The control: what is caught is the mistake, and not the way in which these plugins are made."""
    outcome = judge(module, name).parseoutcomes()
    assert set(outcome) <= {"passed", "skipped", "deselected"}, outcome


@pytest.mark.parametrize(
    ("module", "name", "words"),
    [
        (wrong_bulk, "TestTakesTheLastOfAPageTwice", "*take of 512: 512 rows instead of 512; 1 missing: *; 1 twice: *"),
        (wrong_bulk, "TestCutsEnvelopes", "*65536 bytes instead of 65537; byte 65536 is the first that differs*"),
        (wrong_bulk, "TestSortsWhatWaitsInALibrary", "*- inbox.put: * steps of its library instead of *"),
        (wrong_transports, "TestSwapsPieces", "*byte 4096 is the first that differs: *"),
        (wrong_transports, "TestEndsAtAZero", "* bytes instead of *"),
        (wrong_serializers, "TestLosesDigits", "*0.333333, it was 0.3333333333333333*"),
        (wrong_serializers, "TestMakesTextsOfKeys", "*misses the keys 1 and has '1' instead*"),
        (wrong_storages, "TestHangsWhereManyAppend", "*append in eight threads at once did not come back within 2 s*"),
        (wrong_storages, "TestGivesOneMessageToMany", "*what the four got together: * twice: *"),
        (wrong_storages, "TestHangsOnClose", "*close of the MemoryStorage did not come back within 2 s*"),
        (wrong_handlers, "TestRemembersEveryMessage", "*bytes stay after each of 50 rounds, * from *.py:*"),
        (wrong_handlers, "TestSaysDoneThoughItFailed", "*it failed, and was said to be done, with the result None*"),
        (wrong_handlers, "TestDoesItTwice", "*the same message again did something new: *"),
        (wrong_serializers, "TestUnpacksBombs", "*a body of * bytes (*) took * bytes of memory, more than *"),
        (wrong_others, "TestNodesDoubleWhatComesTwice", "*given to reader, but it is done*"),
        (wrong_others, "TestNodesForgetPriority", "*I10: * entered lane * out of order*"),
    ],
)
def test_what_is_wrong_is_said_in_words(judge, module, name, words):
    """The author reads what differs and where, and need not look for it."""
    judge(module, name, getattr(module, name).caught_by).stdout.fnmatch_lines([words])


def test_there_are_many_mistakes():
    """At least twelve mistakes, among them some of each kind of plugin."""
    assert len(WRONG) >= 60
    kinds = {base.__name__ for module, name in WRONG for base in getattr(module, name).__mro__}
    assert {"StorageContract", "TransportContract", "SerializerContract", "HandlerContract", "ObserverContract",
            "NodeContract", "BodiesContract"} <= kinds  # fmt: skip


def test_stress_repeats_every_test_of_a_contract(judge):
    """`-m stress` runs each test as often as asked; without it each runs once."""
    once = judge(wrong_serializers, "TestGoodSerializer").parseoutcomes()["passed"]
    often = judge(wrong_serializers, "TestGoodSerializer", "", "-m", "stress", "--stress-rounds=3").parseoutcomes()
    assert often["passed"] == 3 * once


def test_a_round_of_stress_over_nodes_passes(pytester):
    """What every generated README tells its author to run: longer tests, large bodies and small ones in turns."""
    outcome = pytester.runpytest_inprocess(
        f"{HERE.parent / 'test_nodes.py'}::TestLoopback", "-k", "memory and (arrives or bodies or all_faults)",
        "-m", "stress", "--stress-rounds=1", "-x", "-q", "--timeout=0", "-p", "no:cacheprovider", "--tb=short",
    ).parseoutcomes()  # fmt: skip
    assert outcome.get("passed") == 3, outcome
    assert set(outcome) <= {"passed", "deselected"}, outcome
