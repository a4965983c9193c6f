"""Discovery stays honest: each way in which a plugin can be wrong is one readable error of the command line.

And a message whose transport is not installed any more is held, hurts nobody, and flows again when it is.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest
from support.nodes import Road, eventually, take_all

from dropr_core.cli.new import render
from dropr_core.hookspecs import CONTRACT
from dropr_core.model.message import State

pytestmark = pytest.mark.e2e

GOOD = """
    from dropr_core.contracts.serializer import Serializer
    from dropr_core.hookspecs import hookimpl
    DROPR_CONTRACT = 1
    class Own(Serializer):
        content_type = "text/x-own"
        def dumps(self, value): return str(value).encode()
        def loads(self, data): return data.decode()
    @hookimpl
    def dropr_serializer(options, context): return Own()
"""


def install(site, distribution, kind, name, module, texts, version="1.0"):
    """A package as an installer leaves it: its files and its entry point."""
    for path, text in texts.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[dropr.{kind}]\n{name} = {module}\n")


@pytest.fixture
def command(tmp_path):
    """command(*words) runs dropr where the packages of ``tmp_path/site-*`` are installed too."""
    (tmp_path / "dropr.yaml").write_text(
        "node: shop\npeers: {berlin: {url: 'http://127.0.0.1:9', key: a-key-that-is-long-enough-for-it-0123456789}}\n"
        "channels: {orders: {to: berlin, serializer: own}}\n"
    )

    def command(*words):
        sites = os.pathsep.join(str(path) for path in sorted(tmp_path.glob("site-*")))
        env = {**os.environ, "PYTHONPATH": sites, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        return subprocess.run(
            [sys.executable, "-m", "dropr_core", *words], check=False, env=env, cwd=tmp_path, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip

    return command


@pytest.fixture
def add(tmp_path):
    """add(distribution, code) installs a package with the serializer ``own``."""

    def add(distribution, code, version="1.0"):
        module = distribution.replace("-", "_")
        install(tmp_path / f"site-{distribution}", distribution, "serializer", "own", module,
                {f"{module}.py": textwrap.dedent(code)}, version)  # fmt: skip

    return add


def test_a_good_plugin_is_found_and_used(command, add):
    """The control: with the package installed the check is content and the message is sent."""
    add("own-pack", GOOD)
    assert command("check").returncode == 0
    sent = command("send", "--channel", "orders", "hello")
    assert sent.returncode == 0, sent.stderr


def test_two_distributions_claiming_one_name(command, add):
    """Both are named with their versions; dropr does not guess."""
    add("one-pack", GOOD, version="1.0")
    add("two-pack", GOOD, version="2.5")
    complain(command, "serializer 'own' is claimed by", "one-pack 1.0 (one_pack)", "two-pack 2.5 (two_pack)",
             "uninstall all but one of them")  # fmt: skip


def test_a_plugin_for_a_newer_core(command, add):
    """It says which contract it needs, which one this dropr speaks, and what to do."""
    add("new-pack", GOOD.replace("DROPR_CONTRACT = 1", f"DROPR_CONTRACT = {CONTRACT + 1}"))
    complain(command, f"new-pack 1.0, new_pack) is written for contract {CONTRACT + 1}",
             f"this dropr speaks {CONTRACT}", "upgrade dropr-core")  # fmt: skip


def test_a_plugin_that_fails_at_import(command, add):
    """The original trouble is in the message, the traceback is not."""
    add("broken-pack", "import a_library_that_is_not_here")
    complain(command, "serializer 'own' (broken-pack 1.0, broken_pack) cannot be imported",
             "No module named 'a_library_that_is_not_here'", "repair or reinstall broken-pack")  # fmt: skip


def test_a_plugin_whose_hook_has_a_wrong_argument(command, add):
    """The argument that no hook has is named, and that its author must mend it."""
    add("wrong-pack", GOOD.replace("(options, context)", "(options, kontext)"))
    complain(command, "serializer 'own' (wrong-pack 1.0, wrong_pack) does not keep to the hooks of dropr", "kontext",
             "tell its author")  # fmt: skip


def test_a_plugin_that_is_not_installed(command):
    """What is installed is listed."""
    complain(command, "serializer 'own' is not installed", "json")


def complain(command, *words):
    """`dropr send` fails with one line that has these words; `dropr plugins` and other channels go on."""
    failed = command("send", "--channel", "orders", "hello")
    assert failed.returncode not in {0, 1}
    lines = failed.stderr.strip().splitlines()
    assert len(lines) == 1, failed.stderr
    for word in words:
        assert word in lines[0]
    listed = command("plugins", "--json")
    assert listed.returncode == 0, listed.stderr
    mine = [line for line in json.loads(listed.stdout)["plugins"] if line["name"] == "own"]
    assert all(line["error"] for line in mine)
    other = command("send", "--to", "berlin", "hello")
    assert other.returncode == 0, other.stderr


# ── a transport that went away ───────────────────────────────────────────────────────────────────


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    road = Road(tmp_path)
    road.env["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    yield road
    road.close()


def test_messages_of_a_transport_that_is_gone_are_held_and_flow_again(road, tmp_path):
    """Its peer is held and says why, the others get their mail, and after the installation it flows: no restart."""
    site, away = tmp_path / "packages", tmp_path / "uninstalled"
    site.mkdir()
    road.env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(site)])
    texts = {path: text for path, text in render("transport", "pigeon").items() if path.startswith("dropr_")}
    install(site, "dropr-transport-pigeon", "transport", "pigeon", "dropr_transport_pigeon", texts)
    loft = f"pigeon://{tmp_path}/loft"
    shop, near, far = road.build("shop", "near", "far", far={"listen": [loft]})
    shop.write(peers={**shop.config["peers"], "far": {**shop.config["peers"]["far"], "url": loft}})
    near.run("server")
    far.run("server")
    daemon = shop.run("daemon")
    with shop.opened() as here, near.opened() as there, far.opened() as yonder:
        here.send(b"1", to="far")
        assert [message.body for message in take_all(yonder, "common", at_least=1)] == [b"1"]
        # The package goes, and the machine is started again.
        daemon.stop()
        shutil.move(site, away)
        site.mkdir()
        held, other = here.send(b"2", to="far"), here.send(b"2", to="near")
        assert held.state is State.QUEUED
        daemon = shop.run("daemon")
        eventually(lambda: held.state is State.HELD, what="the delivery shows as held")
        assert [message.body for message in take_all(there, "common", at_least=1)] == [b"2"]
        eventually(lambda: other.state is State.ACCEPTED, what="the answer comes home")
        reason = here.outbox.peers()["far"].reason
        assert "no installed transport serves 'pigeon://'" in reason
        shown = status_of(road, shop)
        assert "no installed transport serves 'pigeon://'" in shown
        assert daemon.alive
        # It is installed again, while everything runs.
        site.rmdir()
        shutil.move(away, site)
        daemon.signal(signal.SIGHUP)
        assert [message.body for message in take_all(yonder, "common", at_least=1)] == [b"2"]
        eventually(lambda: held.state is State.ACCEPTED, what="the delivery is accepted")
        assert not here.outbox.peers()["far"].held
        assert daemon.alive


def status_of(road, place):
    """What `dropr status` prints."""
    command = [sys.executable, "-m", "dropr_core", "status", "-c", str(place.file)]
    done = subprocess.run(command, check=True, env={**os.environ, **road.env}, capture_output=True, text=True)
    return done.stdout
