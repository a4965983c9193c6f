"""What pytest must know of the kit; loaded by itself where dropr-core is installed.

Owns the marker ``stress``: ``pytest -m stress`` runs the tests of every contract class ``--stress-rounds``
times (default 10) and makes the longer ones longer; without it each runs once. Also makes the asserts of
the contracts explain themselves. And the fixtures for tests of applications (``dropr_node``, ``dropr_pair``,
``dropr_cluster``; docs/guide/testing.md), whose nodes are made in user_nodes.py.
Must import nothing of dropr: every pytest run of every user loads it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dropr_core.api.node import Node
    from dropr_core.testing.user_nodes import Nodes

CONTRACTS = (
    "bad_road", "bench", "bodies_bench", "bodies_care_contract", "bodies_contract",
    "builders", "contract", "echo", "forks", "gateway_contract", "gateway_host",
    "handler_contract", "inbox_care_contract",
    "inbox_contract", "node_contract", "node_rig", "observer_contract", "outbox_contract", "outbox_ends_contract",
    "serializer_contract", "storage_bulk_contract", "storage_contract", "storage_cost_contract", "storage_life",
    "storage_machine", "storage_process_contract", "storage_tiers_contract", "transport_contract",
    "transport_fork_contract", "transport_long_contract",
)  # fmt: skip

for _name in CONTRACTS:
    pytest.register_assert_rewrite(f"dropr_core.testing.{_name}")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The one option."""
    parser.getgroup("dropr").addoption(
        "--stress-rounds", type=int, default=10, metavar="N", help="how often -m stress repeats a contract's tests"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Markers that the kit uses, for suites that allow no unknown ones."""
    config.addinivalue_line("markers", "stress: repeats every test of dropr's contracts, with more of everything")
    config.addinivalue_line("markers", "dropr_nodes(*names): the names of the nodes of the fixture dropr_cluster")
    if not config.pluginmanager.hasplugin("timeout"):
        config.addinivalue_line("markers", "timeout(seconds): only with pytest-timeout")


def stressed(config: pytest.Config) -> bool:
    """Whether this run was asked to repeat."""
    words = str(config.getoption("-m", default="") or "").replace("(", " ").replace(")", " ").split()
    return any(word == "stress" and words[place - 1 : place] != ["not"] for place, word in enumerate(words))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat the tests of contract classes, if asked to."""
    if getattr(metafunc.cls, "dropr_contract", False) and stressed(metafunc.config):
        rounds = max(1, metafunc.config.getoption("--stress-rounds"))
        metafunc.fixturenames.append("stress_round")
        marked = [pytest.param(number, marks=pytest.mark.stress) for number in range(rounds)]
        metafunc.parametrize("stress_round", marked, ids=[f"round{number}" for number in range(rounds)])


@pytest.fixture(autouse=True)
def _dropr_leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test of a contract whose plugin keeps descriptors or threads after everything was closed fails."""
    if not getattr(request.cls, "dropr_contract", False):
        yield
        return
    from dropr_core.testing.leaks import holdings, leaked

    before = holdings()
    yield
    left = leaked(before)
    if left:
        pytest.fail(f"left open after everything was closed: {'; '.join(left)}", pytrace=False)


@pytest.fixture
def stress_round(request: pytest.FixtureRequest) -> int:
    """Which repetition this is: seeds of random tests depend on it. 0 without -m stress."""
    return int(getattr(request, "param", 0))


@pytest.fixture
def strength(pytestconfig: pytest.Config) -> int:
    """1, or more with -m stress: how many times longer a long test should be."""
    return 5 if stressed(pytestconfig) else 1


# ── for tests of applications ────────────────────────────────────────────────────────────────────


@pytest.fixture
def dropr_config() -> Mapping[str, Mapping[str, Any]]:
    """Override it: name of a node → what its file says besides node, data, storage and peers."""
    return {}


@pytest.fixture
def dropr_node(tmp_path: Path, dropr_config: Mapping[str, Mapping[str, Any]]) -> "Iterator[Node]":
    """One open node called ``node``, in memory, without peers unless `dropr_config` names some."""
    from dropr_core.testing.user_nodes import open_node

    with open_node(tmp_path, "node", dropr_config.get("node")) as node:
        yield node


@pytest.fixture
def dropr_pair(tmp_path: Path, dropr_config: Mapping[str, Mapping[str, Any]]) -> "Iterator[Nodes]":
    """Two nodes, ``shop`` and ``warehouse``, in memory, with what carries mail between them."""
    yield from _nodes(tmp_path, ("shop", "warehouse"), dropr_config)


@pytest.fixture
def dropr_cluster(
    request: pytest.FixtureRequest, tmp_path: Path, dropr_config: Mapping[str, Mapping[str, Any]]
) -> "Iterator[Nodes]":
    """Nodes that are all peers of each other: ``one``, ``two``, ``three``, or those of the marker dropr_nodes."""
    marker = request.node.get_closest_marker("dropr_nodes")
    yield from _nodes(tmp_path, tuple(marker.args) if marker else ("one", "two", "three"), dropr_config)


def _nodes(directory: Path, names: tuple[str, ...], more: Mapping[str, Mapping[str, Any]]) -> "Iterator[Nodes]":
    from dropr_core.testing.user_nodes import Nodes

    nodes = Nodes(directory, names, more)
    try:
        yield nodes
    finally:
        nodes.close()
