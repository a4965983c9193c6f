"""What a program that uses dropr loads: the names it asked for, and nothing that only people at a terminal need."""

import json
import subprocess
import sys

import pytest

AT_A_TERMINAL = {"click", "rich", "pygments", "markdown_it"}
"""What draws and reads command lines."""

ON_DEMAND = {
    "requests",
    "urllib3",
    "pycurl",
    "uvicorn",
    "zmq",
    "apsw",
    "hypothesis",
    "pytest",
    "asyncio",
    "dropr_core.testing",
}
"""Of plugins, of the kit and of the asyncio surface: loaded by who names or uses them."""


def loaded(code, *arguments):
    """The modules that a fresh Python has after running some code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))", *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(json.loads(done.stdout.splitlines()[-1]))


def own(modules):
    """Those of core itself."""
    return {name for name in modules if name.partition(".")[0] == "dropr_core"}


def test_importing_the_package_loads_nothing_but_itself():
    """``import dropr_core`` loads no other file of core and no library: each public name comes when it is asked for."""
    modules = loaded("import dropr_core")
    assert own(modules) == {"dropr_core"}
    assert not modules & (AT_A_TERMINAL | ON_DEMAND | {"attrs", "msgspec", "pluggy", "stevedore", "yaml"})


@pytest.fixture
def config(tmp_path):
    """A node with the storage of core itself and a channel with a handler that it must not import."""
    path = tmp_path / "node.yaml"
    path.write_text(
        "node: shop\nstorage: memory\nlimits: {min_free: 0}\n"
        "channels: {jobs: {handler: 'webhook:http://127.0.0.1:9/', serializer: json}}\n"
        "peers: {ware: {url: 'http://127.0.0.1:9', key: '0123456789abcdef0123456789abcdef'}}\n"
    )
    return str(path)


def test_opening_and_sending_loads_neither_terminal_nor_transports(config):
    """A program that opens a node and sends loads no command line, no server, no delivery, no transport, no webhook."""
    code = (
        "import sys, dropr_core\n"
        "with dropr_core.open(sys.argv[1]) as node: node.send({'sku': 7}, to='ware', channel='jobs')"
    )
    modules = loaded(code, config)
    assert not modules & (AT_A_TERMINAL | ON_DEMAND)
    rooms = {name.split(".")[1] for name in own(modules) if "." in name}
    assert rooms == {
        "api",
        "bodies",
        "builtin",
        "config",
        "contracts",
        "errors",
        "hookspecs",
        "model",
        "plugin",
        "storage_kit",
        "system",
    }


def test_receiving_loads_no_more(config):
    """A program that puts and receives stays within the same rooms."""
    code = (
        "import sys, dropr_core\n"
        "with dropr_core.open(sys.argv[1]) as node:\n"
        "    node.put({'sku': 7}, channel='jobs')\n"
        "    print([message.value for message in node.receive('jobs', wait=0)])"
    )
    modules = loaded(code, config)
    assert not modules & (AT_A_TERMINAL | ON_DEMAND)
    assert not {name.split(".")[1] for name in own(modules) if "." in name} & {
        "cli",
        "delivery",
        "processes",
        "serving",
    }


def test_only_the_webhook_handler_uses_requests():
    """Core's own HTTP client is in the box for one plugin, and for nobody else."""
    assert "requests" in loaded("import dropr_core.builtin.handlers.webhook")
    everything = (
        "import dropr_core.processes.daemon, dropr_core.processes.server, dropr_core.processes.worker\n"
        "import dropr_core.api.aio, dropr_core.angel.angel, dropr_core.cli.app, dropr_core.fsck.contents"
    )
    assert "requests" not in loaded(everything)
