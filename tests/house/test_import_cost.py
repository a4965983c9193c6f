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
    """``import dropr_core`` loads no library, and of core only that under which the rest is imported, so that a fork
    waits for it: each public name comes when it is asked for.
    """
    modules = loaded("import dropr_core")
    assert own(modules) == {"dropr_core", "dropr_core.system", "dropr_core.system.loading"}
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


FOR_MISTAKES = {"difflib", "fractions", "multiprocessing", "ssl", "unittest", "pydoc", "http.client"}
"""Of Python's own: only who has made a mistake, or speaks with somebody, needs them."""

RECEIVES = {"api.node", "api.batch", "api.consumer", "api.received", "api.receive_plan", "api.failures", "cli.listing"}
CARRIES = {"delivery", "protocol", "serving", "processes", "fsck", "demo", "testing", "angel", "builtin.handlers"}


@pytest.fixture
def shop(tmp_path):
    """A node with the default storage, as most have it."""
    path = tmp_path / "node.yaml"
    path.write_text(
        "node: shop\nlimits: {min_free: 0}\nchannels: {jobs: {to: ware}}\n"
        "peers: {ware: {url: 'http://127.0.0.1:9', key: '0123456789abcdef0123456789abcdef'}}\n"
    )
    path.chmod(0o600)
    done = subprocess.run([sys.executable, "-m", "dropr_core", "send", "-c", path, "--channel", "jobs", "first"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return str(path)


@pytest.mark.parametrize(
    ("words", "needless", "most"),
    [
        (["send", "--channel", "jobs", "hello"], RECEIVES | CARRIES, 92),
        (["status"], RECEIVES | CARRIES - {"angel", "serving"}, 96),
        (["receive", "jobs", "--limit", "1", "--wait", "0"], CARRIES, 102),
    ],
    ids=["send", "status", "receive"],
)
def test_the_verbs_of_scripts_load_what_they_need(shop, words, needless, most):
    """``dropr send``, ``status`` and ``receive``, which scripts call again and again, load nothing that they do not
    use, and hardly more files of core than today (92, 96, 102): each one is a millisecond of everybody's.
    """
    code = (
        "import sys\n"
        "from dropr_core.cli import main\n"
        "sys.argv[0] = 'dropr'\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code or sys.argv[1] == 'receive', end.code"
    )
    modules = loaded(code, words[0], "--config", shop, *words[1:])  # click asks difflib about -c
    assert not modules & (ON_DEMAND - {"apsw"} | AT_A_TERMINAL - {"click"} | FOR_MISTAKES)
    ours = {name.removeprefix("dropr_core.") for name in own(modules)}
    assert not {name for name in ours if any(f"{name}.".startswith(f"{one}.") for one in needless)}
    assert len(ours) <= most


def test_sending_from_a_script_never_looks_through_all_that_was_imported(shop):
    """`dropr send` has no full collection of garbage, and at its end Python's own has nothing to look through: together
    a quarter of its processor time.
    """
    code = (
        "import gc, sys\n"
        "from dropr_core.cli import main\n"
        "sys.argv[0] = 'dropr'\n"
        "before = gc.get_stats()[2]['collections']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print([gc.get_stats()[2]['collections'] - before, len(gc.get_objects()) < gc.get_freeze_count() / 10])"
    )
    words = [sys.executable, "-c", code, "send", "--config", shop, "--channel", "jobs", "hello"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1].lower()) == [0, True]


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
