"""The verb install: units that systemd accepts, and files that are nobody else's."""

import json
import os
import pwd
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from support import clients

from dropr_core.angel.unit import UnitFacts, is_unchanged, render, written_for
from dropr_core.cli.app import application
from dropr_core.system.exit_codes import Exit

ME = pwd.getpwuid(os.geteuid()).pw_name


def install(file, directory, *words, code=0):
    """What the verb says, as JSON, with units in a directory of the test."""
    result = CliRunner().invoke(
        application(), ["install", "-c", str(file), "--directory", str(directory), "--json", *words]
    )
    assert result.exit_code == code, (result.output, result.exception)
    return json.loads(result.stdout) if code == 0 else result.stderr


def facts(**changes):
    """A node at the usual places of a server."""
    there = {
        "node": "shop", "config": Path("/etc/dropr/shop.yaml"), "data": Path("/srv/shop/data"), "user": "shop",
        "command": ["/opt/dropr/bin/dropr", "up", "-c", "/etc/dropr/shop.yaml"], "drain": 25.0,
    }  # fmt: skip
    return UnitFacts(**there | changes)


def settings(text):
    """Setting → its values, in order."""
    found = {}
    for line in text.splitlines():
        if (match := re.match(r"(\w+)=(.*)", line)) is not None:
            found.setdefault(match[1], []).append(match[2])
    return found


def analyze(*words):
    """What systemd's own checker says of the unit named last; exit code and text."""
    program = clients.program("systemd-analyze", "systemd")
    done = subprocess.run(
        [program, *words], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "XDG_RUNTIME_DIR": str(Path(words[-1]).parent), "SYSTEMD_COLORS": "0"},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


KINDS = {
    "system": {"data": Path("/usr"), "config": Path("/etc/hostname"), "user": "root"},
    "user": {"data": Path("/usr"), "config": Path("/etc/hostname"), "user": None},
    "state": {"data": Path("/var/lib/dropr/shop"), "config": Path("/etc/hostname"), "user": "root", "low_port": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_systemd_finds_no_mistake_in_a_unit(kind, tmp_path):
    """What is written for the machine, for a user, and for data where systemd keeps state passes its own checker."""
    text = render(facts(command=["/bin/true", "up", "-c", 'a file with 50% "of" a \\ and a $HOME'], **KINDS[kind]))
    unit = tmp_path / "dropr-shop.service"
    unit.write_text(text)
    code, said = analyze(*(["--user"] if kind == "user" else []), "verify", "--man=no", str(unit))
    assert (code, said.strip()) == (0, "")


def test_the_checker_would_find_a_mistake(tmp_path):
    """A setting that systemd does not know, and a word that no quotes hold together, are found."""
    unit = tmp_path / "dropr-shop.service"
    text = render(facts(command=["/bin/true"], **KINDS["system"])).replace("UMask=", "Umaske=")
    unit.write_text(text)
    _, said = analyze("verify", "--man=no", str(unit))
    assert "Umaske" in said


def test_a_service_of_the_machine_may_little(tmp_path):
    """systemd's own measure of exposure, from 0.0 (safe) to 10.0, is at most 2.0."""
    unit = tmp_path / "dropr-shop.service"
    unit.write_text(render(facts(command=["/bin/true"])))
    code, said = analyze("security", "--offline=yes", "--threshold=20", "--no-pager", str(unit))
    assert code == 0, said


def test_paths_are_written_as_systemd_reads_them():
    """Spaces, quotes, specifiers and variables in paths stay what they are."""
    place = Path('/srv/a "b" 5% $x\\')
    found = settings(render(facts(config=place / "n.yaml", data=place, command=["/bin/true", "-c", f"{place}/n.yaml"])))
    assert found["ReadWritePaths"] == ['"/srv/a \\"b\\" 5%% $x\\\\"']
    assert found["ExecStart"] == ['/bin/true -c "/srv/a \\"b\\" 5%% $$x\\\\/n.yaml"']
    assert found["WorkingDirectory"] == ['/srv/a "b" 5%% $x\\']


def test_what_is_hidden_follows_from_where_the_node_stands():
    """Homes and temporary directories are hidden from a node, unless it stands in one."""
    usual = settings(render(facts()))
    assert (usual["ProtectHome"], usual["PrivateTmp"]) == (["yes"], ["yes"])
    at_home = settings(render(facts(programs=[Path("/home") / "ada" / "bin" / "python"])))
    assert (at_home["ProtectHome"], at_home["PrivateTmp"]) == (["read-only"], ["yes"])
    passing = settings(render(facts(data=Path("/var/tmp") / "shop")))
    assert (passing["ProtectHome"], passing["PrivateTmp"]) == (["yes"], ["no"])


def test_data_where_systemd_keeps_state_is_made_by_systemd():
    """Below /var/lib the unit names its StateDirectory; elsewhere the path is made writable."""
    state = settings(render(facts(data=Path("/var/lib/dropr/shop"))))
    assert (state["StateDirectory"], state.get("ReadWritePaths")) == (["dropr/shop"], None)
    other = settings(render(facts(writable=[Path("/srv/out")])))
    assert (other.get("StateDirectory"), other["ReadWritePaths"]) == (None, ["/srv/shop/data", "/srv/out"])


def test_it_stops_later_than_the_node_has_drained():
    """systemd waits longer than the node may take to end; a port below 1024 brings the one right that it needs."""
    assert settings(render(facts(drain=100.0)))["TimeoutStopSec"] == ["115"]
    assert settings(render(facts()))["CapabilityBoundingSet"] == [""]
    assert settings(render(facts(low_port=True)))["AmbientCapabilities"] == ["CAP_NET_BIND_SERVICE"]


def test_it_knows_its_own_file_again():
    """A unit that we wrote is known with its node; a changed one is known as changed; a stranger's is not ours."""
    text = render(facts())
    assert (written_for(text), is_unchanged(text)) == ("/etc/dropr/shop.yaml", True)
    assert not is_unchanged(text + "Nice=5\n")
    assert written_for(text.partition("\n")[2]) is None


def test_install_writes_prints_and_removes(file, tmp_path):
    """The unit is shown without being written, written, written anew, and removed; the data stays out of it."""
    units = tmp_path / "units"
    shown = install(file, units, "--system", "--run-as", ME, "--print")
    assert not units.exists()
    wrote = install(file, units, "--system", "--run-as", ME)
    unit = units / "dropr-shop.service"
    assert Path(wrote["unit"]) == unit
    assert unit.read_text() == wrote["text"] == shown["text"]
    assert unit.stat().st_mode & 0o777 == 0o644
    assert wrote["next"][1] == "systemctl enable --now dropr-shop.service"
    found = settings(wrote["text"])
    assert found["User"] == [ME]
    assert shlex.split(found["ExecStart"][0])[-3:] == ["up", "-c", str(file)]
    assert install(file, units, "--system", "--run-as", ME)["written"]
    assert install(file, units, "--system", "--uninstall")["removed"]
    assert list(units.iterdir()) == []
    assert not install(file, units, "--system", "--uninstall")["removed"]


def test_install_for_a_user_is_that_users(file, tmp_path):
    """A user's own unit names no user, and its commands are those of the user's manager."""
    made = install(file, tmp_path / "units", "--user")
    assert "User" not in settings(made["text"])
    assert made["next"][0] == "systemctl --user daemon-reload"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda _text: "[Service]\nExecStart=/bin/true\n", "was not written by 'dropr install'"),
        (lambda text: text + "Nice=5\n", "was changed since"),
        (lambda text: text.replace(".yaml;", ".yml;", 1), "runs the node of"),
    ],
)
def test_install_leaves_alone_what_is_not_its_own(file, tmp_path, change, says):
    """A unit of a stranger, one that was changed, and that of another node are neither overwritten nor removed."""
    unit = tmp_path / "dropr-shop.service"
    install(file, tmp_path, "--user")
    unit.write_text(change(unit.read_text()))
    before = unit.read_text()
    for more in ([], ["--uninstall"]):
        assert says in install(file, tmp_path, "--user", *more, code=Exit.CANTCREAT)
        assert unit.read_text() == before


def test_install_follows_no_link(file, tmp_path):
    """A link in the place of the unit is left with what it leads to."""
    other = tmp_path / "other"
    other.write_text("mine\n")
    (tmp_path / "dropr-shop.service").symlink_to(other)
    assert "is a link" in install(file, tmp_path, "--user", code=Exit.CANTCREAT)
    assert other.read_text() == "mine\n"


def test_an_enabled_unit_is_not_removed(file, tmp_path):
    """As long as systemd starts it, the file stays, and the command that comes first is named."""
    install(file, tmp_path, "--user")
    (tmp_path / "default.target.wants").mkdir()
    (tmp_path / "default.target.wants" / "dropr-shop.service").symlink_to(tmp_path / "dropr-shop.service")
    said = install(file, tmp_path, "--user", "--uninstall", code=Exit.UNAVAILABLE)
    assert "systemctl --user disable --now dropr-shop.service" in said


def test_install_makes_nobody_root_by_accident(file, tmp_path):
    """Where nothing says whose the node is, and for a user who is not there, it asks; no unit gets a wrong name."""
    if os.geteuid() == 0:
        assert "--run-as" in install(file, tmp_path, "--system", code=Exit.USAGE)
    assert "no user 'nobody-here'" in install(file, tmp_path, "--system", "--run-as", "nobody-here", code=Exit.USAGE)
    assert "no name of a unit" in install(file, tmp_path, "--user", "--name", "../x", code=Exit.USAGE)


def test_install_says_which_variables_a_service_lacks(file, tmp_path, monkeypatch):
    """References to the environment need a file of variables; with one there is nothing to say."""
    monkeypatch.setenv("LAPTOP_KEY", "k" * 40)
    file.write_text(
        re.sub(r'laptop: \{mode: pull, key: "[^"]+"', 'laptop: {mode: pull, key: "${env:LAPTOP_KEY}"', file.read_text())
    )
    assert "needs LAPTOP_KEY" in install(file, tmp_path, "--user", "--print")["warnings"][0]
    made = install(file, tmp_path, "--user", "--print", "--env-file", str(tmp_path / "shop.env"))
    assert made["warnings"] == []
    assert settings(made["text"])["EnvironmentFile"] == [str(tmp_path / "shop.env")]
