"""The verbs that set up a shell: completion and manual."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from support import clients

from dropr_core.cli.app import application
from dropr_core.cli.completion import VARIABLE

VERBS = application().list_commands(None)


@pytest.mark.parametrize(("shell", "check"), [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")])
def test_each_shell_can_read_its_script(shell, check, tmp_path):
    """The script for a shell passes that shell's own look at its grammar, and asks dropr for its words."""
    made = CliRunner().invoke(application(), ["completion", shell])
    assert made.exit_code == 0, made.output
    assert VARIABLE in made.stdout
    script = tmp_path / "script"
    script.write_text(made.stdout)
    done = subprocess.run(
        [clients.program(shell, shell), check, str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("dropr ins", ["install"]), ("dropr rel", ["release"]), ("dropr install --uni", ["--uninstall"]),
     ("dropr completion ", ["bash", "fish", "zsh"])],
)  # fmt: skip
def test_verbs_options_and_choices_are_completed(typed, offered):
    """What bash asks for a half-typed word is answered with the words that begin so."""
    words = typed.split(" ")
    asked = {VARIABLE: "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    answer = CliRunner().invoke(application(), [], prog_name="dropr", env=asked)
    assert sorted(line.partition(",")[2] for line in answer.stdout.split()) == offered


def test_bash_completes_with_the_script(tmp_path):
    """In a bash that has read the script, the word `fsc` after `dropr` becomes `fsck`."""
    script = tmp_path / "dropr.bash"
    script.write_text(CliRunner().invoke(application(), ["completion", "bash"]).stdout)
    words = "COMP_WORDS=(dropr fsc); COMP_CWORD=1; _dropr_completion dropr; echo ${COMPREPLY[@]}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", f". {script}; {words}"],
        capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "PATH": path},
    )  # fmt: skip
    assert done.stdout.split() == ["fsck"]


@pytest.fixture
def pages(tmp_path):
    """The directory with all pages."""
    made = CliRunner().invoke(application(), ["manual", "--directory", str(tmp_path / "man1"), "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["pages"] == sorted(["dropr.1", *(f"dropr-{name}.1" for name in VERBS)])
    return tmp_path / "man1"


def test_every_page_is_good_roff(pages):
    """mandoc finds no mistake and nothing to warn of in any page."""
    program = clients.program("mandoc", "mandoc")
    done = subprocess.run(
        [program, "-T", "lint", "-W", "warning,stop", *sorted(map(str, pages.iterdir()))],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_page_says_what_help_says(pages):
    """As man shows it, the page of a verb has its usage, each option with its meaning, and the keys of its JSON."""
    program = clients.program("mandoc", "mandoc")
    shown = subprocess.run(
        [program, "-T", "ascii", "-O", "width=500", str(pages / "dropr-install.1")],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    plain = " ".join("".join(c for i, c in enumerate(shown) if c != "\b" and shown[i + 1 : i + 2] != "\b").split())
    command = application().get_command(None, "install")
    assert "dropr-install - Write a systemd unit that runs the whole node" in plain
    for option in command.params:
        assert " ".join((option.help or "").replace("`", "").split()) in plain, option.name
        assert option.opts[-1] in plain
    assert "(the unit's content)" in plain
