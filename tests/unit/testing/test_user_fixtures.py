"""The fixtures for tests of applications, used by suites as users write them."""

import pytest

pytest_plugins = ["pytester"]

SUITE = """
import pytest

import dropr_core as dropr


@pytest.fixture
def dropr_config():
    return {
        "node": {"channels": {"jobs": {"serializer": "json"}}},
        "shop": {"channels": {"orders": {"to": "warehouse", "serializer": "json", "receipt": True}}},
    }


def test_one(dropr_node):
    got = []
    dropr_node.on("jobs")(lambda work: got.append(work.value))
    dropr_node.put({"sku": 7}, channel="jobs")
    assert dropr_node.work(wait=0) == 1
    assert got == [{"sku": 7}]


def test_a_pair(dropr_pair):
    shop, warehouse = dropr_pair
    message = shop.send({"sku": 7}, channel="orders")
    dropr_pair.deliver()
    (received,) = [one.value for one in warehouse.receive("orders", wait=0)]
    assert received == {"sku": 7}
    message.wait(timeout=30)
    warehouse.send(b"thanks", to="shop")
    dropr_pair.deliver()
    assert [one.body for one in shop.receive("common", wait=0)] == [b"thanks"]


def test_a_road_that_is_closed(dropr_pair):
    shop, warehouse = dropr_pair
    dropr_pair.unplug("warehouse")
    dropr_pair.unplug("warehouse")
    message = shop.send({"sku": 8}, channel="orders")
    dropr_pair.deliver()
    assert message.status.state == "queued"
    assert list(warehouse.receive("orders", wait=0)) == []
    dropr_pair.plug_in("warehouse")
    dropr_pair.deliver()
    assert [one.value for one in warehouse.receive("orders", wait=0)] == [{"sku": 8}]


"""

CLUSTER = """
import pytest


def test_three(dropr_cluster):
    assert len(dropr_cluster) == 3
    dropr_cluster["one"].send(b"all", to=["two", "three"])
    dropr_cluster.deliver()
    for name in ("two", "three"):
        assert [one.body for one in dropr_cluster[name].receive("common", wait=0)] == [b"all"]


@pytest.mark.dropr_nodes("a", "b", "c", "d")
def test_named(dropr_cluster):
    assert [node.name for node in dropr_cluster] == ["a", "b", "c", "d"]
"""

WRONG = """
import pytest


@pytest.fixture
def dropr_config():
    return {"shoop": {}}


def test_wrong(dropr_pair):
    pass
"""


def test_one_node_and_a_pair(pytester):
    """A handler is called, mail goes both ways with a receipt, and a closed road keeps it until it is open again."""
    pytester.makepyfile(SUITE)
    pytester.runpytest("-q", "-p", "no:cacheprovider", "-W", "error").assert_outcomes(passed=3)


def test_a_cluster(pytester):
    """Three nodes by default, others by the marker, which strict suites know; all are peers of each other."""
    pytester.makepyfile(CLUSTER)
    pytester.runpytest("-q", "-p", "no:cacheprovider", "--strict-markers", "-W", "error").assert_outcomes(passed=2)


def test_a_configuration_for_nobody_is_told(pytester):
    """A name in dropr_config that is no node's is a mistake with the names that there are."""
    pytester.makepyfile(WRONG)
    result = pytester.runpytest("-q", "-p", "no:cacheprovider")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*dropr_config names shoop; the nodes are shop, warehouse*"])


@pytest.mark.parametrize("name", ["dropr_node", "dropr_pair", "dropr_cluster"])
def test_they_are_listed_with_a_sentence(pytester, name):
    """`pytest --fixtures` shows each with what it is."""
    listed = pytester.runpytest("--fixtures", "-q").stdout.str()
    assert f"{name} -- " in listed
