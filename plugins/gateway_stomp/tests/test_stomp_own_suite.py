"""stomp-py's own test suite, as it is, against the door: of the last release whose source package brings its tests.

Those of the newest release are in its repository alone; `make own-suite SUITE=stomp-py` runs them.
"""

import os
import sys
import tarfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from support import clients
from support.nodes import Road

pytestmark = pytest.mark.e2e

SDISTS = clients.NPM / "sdists"
WANTED = [  # what needs a broker and nothing else, and has no race of its own
    "activemq_test",
    "basic_test.TestBasicSend.test_abort",
    "basic_test.TestBasicSend.test_basic",
    "basic_test.TestBasicSend.test_childinterrupt",
    "basic_test.TestBasicSend.test_clientack",
    "basic_test.TestBasicSend.test_clientnack",
    "basic_test.TestBasicSend.test_commit",
    "basic_test.TestBasicSend.test_specialchars",
    "basic_test.TestConnectionErrors",
    "basic_test.TestContext",
    "misc_test.TestMessageTransform",
    "nonascii_test",
    "s10_test",
    "s11_test.Test11Send.test11",
    "s11_test.Test11Send.testheartbeat",
    "s12_test.Test12Connect.test_clientack",
    "s12_test.Test12Connect.test_clientnack",
    "s12_test.Test12Connect.test_send",
    "s12_test.Test12Connect.test_specialchars",
    "stompserver_test",
]


def own_suites():
    """What both ways of running it share."""
    spec = spec_from_file_location("own_suites", Path(clients.NPM).parent / "own_suites.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The client with its tests."""
    found = sorted(SDISTS.glob("stomp*.tar.gz"))
    if not found:
        clients.missing("the source package of stomp-py is not here: run .ci/install-clients")
    directory = tmp_path_factory.mktemp("source")
    with tarfile.open(found[-1]) as archive:
        archive.extractall(directory, filter="data")
    (tree,) = directory.iterdir()
    return tree


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Tells the suite where the doors are."""
    road = Road(tmp_path_factory.mktemp("road"))
    shared = own_suites()
    (place,) = road.build("shop", shop={"gateways": shared.stomp_gateways("tcp://127.0.0.1:0")})
    place.run("gateway")
    yield {**os.environ, **shared.stomp_environment(place), "PYTHONDONTWRITEBYTECODE": "1"}
    road.close()


@pytest.mark.parametrize("name", WANTED)
def test_stomp_py_is_content(source, environment, name):
    """A test of its suite passes with our door as the broker."""
    command = [sys.executable, "-W", "ignore", "-m", "unittest", f"stomp.test.{name}"]
    clients.run(*command, cwd=source, env=environment)
