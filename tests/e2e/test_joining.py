"""Two machines made peers by a token: real commands and real processes, in two fresh directories."""

import contextlib
import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from support.nodes import PATIENCE, eventually, free_port

from dropr_core.cli.app import application
from dropr_core.config.node import load


class Machine:
    """A directory in which commands are run, as a person on that machine would."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir()
        self.up_process = None

    def run(self, *words, code=0, text=None):
        """What a command prints, run in this process."""
        with contextlib.chdir(self.directory):
            done = CliRunner().invoke(application(), list(words), input=text, env={"DROPR_CONFIG": None})
        assert done.exit_code == code, (words, done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stderr

    def call(self, *words, code=0, text=None):
        """What a command prints, as a process of its own."""
        done = subprocess.run(  # noqa: PLW1510  # its code is looked at
            [sys.executable, "-m", "dropr_core", *words], cwd=self.directory, input=text, text=True,
            capture_output=True, timeout=4 * PATIENCE, env={**os.environ, "DROPR_CONFIG": ""},
        )  # fmt: skip
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stderr

    def up(self):
        """`dropr up`, until the test ends."""
        with (self.directory / "up.log").open("ab") as log:
            self.up_process = subprocess.Popen(
                [sys.executable, "-m", "dropr_core", "up"], cwd=self.directory, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

    @property
    def log(self):
        """What `dropr up` said."""
        return (self.directory / "up.log").read_text()

    def stop(self):
        """End what runs."""
        if self.up_process is not None:
            self.up_process.terminate()
            self.up_process.wait(PATIENCE)


@pytest.fixture
def machines(tmp_path):
    """Two machines; whatever runs on them is gone after the test."""
    made = [Machine(tmp_path / "a"), Machine(tmp_path / "b")]
    yield made
    for machine in made:
        machine.stop()


def invite(machine, name, *words):
    return json.loads(machine.run("invite", name, "--json", *words))["token"]


def test_three_commands_each_and_a_message_each_way(machines):
    """init, invite, up here; join, up, send there: the running node takes the new peer in without a restart."""
    shop, berlin = machines
    shop.call("init", "--node", "shop", "--listen", f"http://127.0.0.1:{free_port()}")
    shop.up()
    eventually(lambda: "listens on" in shop.log)
    token = shop.call("invite", "berlin").strip()
    joined = json.loads(berlin.call("join", token, "--json"))
    assert (joined["peer"], joined["mode"]) == ("shop", "pull")
    berlin.up()
    berlin.call("send", '{"sku": 7}', "--channel", "orders")
    assert json.loads(shop.call("receive", "orders", "--wait", f"{PATIENCE:.0f}s", "--limit", "1")) == {"sku": 7}
    shop.call("send", "thanks", "--to", "berlin", "--channel", "answers")
    assert berlin.call("receive", "answers", "--wait", f"{PATIENCE:.0f}s", "--limit", "1").strip() == "thanks"
    assert "used already" in machines[1].run("join", token, "-c", "other.yaml", code=69)
    assert not (berlin.directory / "other.yaml").exists()
    assert json.loads(shop.run("invite", "--list", "--json"))["invitations"][0]["state"] == "used"
    for machine in machines:
        assert "Traceback" not in machine.log


def test_over_zeromq_both_listen_and_call_each_other(machines):
    """The token brings the public key; the joining node's listener tells its own, and both push."""
    shop, berlin = machines
    for machine, name in ((shop, "shop"), (berlin, "berlin")):
        machine.run("keygen", "zmq", "--file", "own.curve")
        (machine.directory / "dropr.yaml").write_text(
            f'node: {name}  # by hand\nlisten: ["zmq+tcp://127.0.0.1:{free_port()}"]\n'
            'transports:\n  zmq: {key: "${file:own.curve}"}\nlimits: {min_free: 0}\n'
        )
        (machine.directory / "dropr.yaml").chmod(0o600)
        machine.up()
    eventually(lambda: "listens on" in shop.log and "listens on" in berlin.log)
    joined = json.loads(berlin.run("join", "-", "--json", text=invite(shop, "berlin", "--may-write", "orders")))
    assert (joined["mode"], "?curve=" in joined["url"]) == ("push", True)
    here, there = (load(machine.directory / "dropr.yaml").peers for machine in machines)
    assert here["berlin"].keys == there["shop"].keys
    assert ("?curve=" in here["berlin"].url, here["berlin"].may_write) == (True, ("orders",))
    berlin.run("send", "one", "--to", "shop", "--channel", "orders")
    assert shop.run("receive", "orders", "--wait", f"{PATIENCE:.0f}s", "--limit", "1").strip() == "one"
    shop.run("send", "two", "--to", "berlin", "--channel", "answers")
    assert berlin.run("receive", "answers", "--wait", f"{PATIENCE:.0f}s", "--limit", "1").strip() == "two"


def test_what_cannot_be_done_says_what_to_do(machines):
    """Nobody listens; a revoked token; a damaged one; nobody at the address: words for each, and no file is made."""
    shop, berlin = machines
    shop.run("init", "--node", "shop", "--listen", f"http://127.0.0.1:{free_port()}")
    token = invite(shop, "berlin")
    assert "its server must run" in berlin.run("join", token, "--wait", "0", code=69)
    assert "damaged" in berlin.run("join", token[:-3], code=64)
    shop.run("invite", "--revoke", "berlin")
    assert "no invitation" in shop.run("invite", "--list")
    shop.up()
    eventually(lambda: "listens on" in shop.log)
    assert "was revoked, or ended long ago" in berlin.run("join", token, code=69)
    assert not (berlin.directory / "dropr.yaml").exists()
    berlin.run("init", "--node", "berlin", "--peer", "oslo")
    assert "has no `listen:`, so nobody can join it" in berlin.run("invite", "rome", code=78)
    assert "is a peer already" in berlin.run("invite", "oslo", code=64)
