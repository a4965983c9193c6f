"""The command line without a node: help, exit codes, words, the reference."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dropr_core import errors
from dropr_core.cli import output as words
from dropr_core.cli.app import SECTIONS, application
from dropr_core.cli.common import PAIR, Settings, Verb, verb
from dropr_core.cli.failures import BROKEN_PIPE, INTERRUPTED, Stop, explain, report
from dropr_core.cli.reference import reference
from dropr_core.system.exit_codes import Exit

VERBS = [name for _, verbs in SECTIONS for name in verbs]
ROOT = Path(__file__).resolve().parents[3]


def dropr(*arguments, **options):
    """Run the command as a process of its own."""
    options.setdefault("timeout", 60)
    return subprocess.run([sys.executable, "-m", "dropr_core", *arguments], capture_output=True, check=False, **options)


def with_verb(function, name="try"):
    """An application that has one more verb, which does ``function``."""
    app = application()
    app.add_command(verb(name, config=False)(function))
    app.get_command = lambda _ctx, word: app.commands.get(word)
    return app


# ── finding verbs ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_explains_itself(name):
    """Each verb of the list can be imported and has a help text and its common options."""
    result = CliRunner().invoke(application(), [name, "--help"])
    assert result.exit_code == 0, result.output
    command = application().get_command(None, name)
    assert isinstance(command, Verb)
    assert command.name == name
    assert command.help
    assert "--verbose" in result.output


def test_help_shows_the_verbs_under_their_headings():
    """The help of the command names every verb, grouped by what it does."""
    text = CliRunner().invoke(application(), ["-h"]).output
    for heading, verbs in SECTIONS:
        assert f"{heading}:" in text
        for name in verbs:
            assert re.search(rf"^  {name} ", text, re.MULTILINE)


def test_a_verb_is_imported_only_when_wanted():
    """Starting one verb imports neither the others' files nor anything heavy."""
    code = (
        "import sys; from dropr_core.cli.app import application\n"
        "try: application().main(['send', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1]
    assert "dropr_core.cli.sending" in loaded
    for other in ("cli.status", "cli.listing", "cli.running", "rich", "yaml", "stevedore", "requests"):
        assert other not in loaded


def test_version_is_said():
    """--version names dropr and the version of the package."""
    import dropr_core

    assert CliRunner().invoke(application(), ["--version"]).output == f"dropr {dropr_core.__version__}\n"


def test_an_unknown_verb_or_option_is_a_usage_error():
    """What the command line does not know ends with 64 and a hint where help is, without a traceback."""
    for arguments in (["sned"], ["send", "--colour"], ["hold"], ["kick"], ["list", "--state", "odd"], ["cat", "no-id"]):
        result = CliRunner().invoke(application(), arguments)
        assert result.exit_code == Exit.USAGE, arguments
        assert result.stderr.startswith("dropr: ")
        assert "--help' tells more" in result.stderr
        assert "Traceback" not in result.output


def test_no_configuration_ends_with_78_and_says_how_to_make_one(tmp_path):
    """Without -c, $DROPR_CONFIG and ./dropr.yaml a verb says so and how to go on."""
    environment = {key: value for key, value in os.environ.items() if key != "DROPR_CONFIG"}
    done = dropr("status", cwd=tmp_path, env=environment, text=True)
    assert done.returncode == Exit.CONFIG
    assert done.stdout == ""
    assert done.stderr.startswith("dropr: no configuration")
    assert "dropr init" in done.stderr


# ── endings ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError(["a", "b"]), Exit.CONFIG),
        (errors.PluginError("x"), Exit.CONFIG),
        (errors.UnknownPeer("x"), Exit.USAGE),
        (errors.Conflict("x"), Exit.USAGE),
        (errors.Held("x"), Exit.UNAVAILABLE),
        (errors.QueueFull("x"), Exit.TEMPFAIL),
        (errors.StoreBusy("x"), Exit.TEMPFAIL),
        (errors.StoreCorrupt("x"), Exit.IO_ERROR),
        (errors.WriteFailed("x"), Exit.IO_ERROR),
        (errors.Unreachable("x"), Exit.UNAVAILABLE),
        (errors.BadEnvelope("x"), Exit.DATA),
        (errors.BadFrame("x"), Exit.PROTOCOL),
        (errors.WaitTimeout("x"), Exit.FAILED),
        (errors.DeliveryFailed("x"), Exit.FAILED),
        (errors.Closed("x"), Exit.SOFTWARE),
        (Stop(Exit.NO_INPUT, "x"), Exit.NO_INPUT),
        (FileNotFoundError(errno.ENOENT, "no", "f"), Exit.NO_INPUT),
        (PermissionError(errno.EACCES, "no", "f"), Exit.NO_PERMISSION),
        (OSError(errno.ENOSPC, "full"), Exit.IO_ERROR),
        (OSError(errno.EMFILE, "many"), Exit.OS_ERROR),
        (click.UsageError("x"), Exit.USAGE),
        (KeyboardInterrupt(), INTERRUPTED),
        (click.Abort(), INTERRUPTED),
        (ZeroDivisionError("x"), Exit.SOFTWARE),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error, code):
    """The exit code tells the kind of a mistake; the same for every verb."""
    found, lines = explain(error)
    assert found == code
    assert all(lines)


def test_every_error_of_dropr_has_a_code_of_its_own_kind():
    """No error that dropr raises on purpose is reported as a bug, but misuse after close and handlers' words."""

    def below(kind):
        yield kind
        for child in kind.__subclasses__():
            yield from below(child)

    makers = {errors.ConfigError: [["x"]], errors.Refused: ["code", "x"]}
    bugs = {
        kind
        for kind in below(errors.DroprError)
        if kind.__module__ == "dropr_core.errors" and explain(kind(*makers.get(kind, ["x"])))[0] == Exit.SOFTWARE
    }
    assert bugs <= {errors.DroprError, errors.Closed, errors.Retry, errors.Reject}


def test_a_wrong_configuration_lists_each_problem_on_a_line(capsys):
    """ConfigError prints one line for each mistake, all with the same beginning."""
    assert report(errors.ConfigError(["a.yaml:1: x: no", "a.yaml:2: y: no"])) == Exit.CONFIG
    assert capsys.readouterr().err == "dropr: a.yaml:1: x: no\ndropr: a.yaml:2: y: no [config-error]\n"


def test_a_bug_is_one_line_and_vv_shows_the_traceback():
    """An unexpected exception is one line and exit 70; with -vv the traceback comes before it."""

    def fail():
        raise ZeroDivisionError("halves of nothing")

    quiet = CliRunner().invoke(with_verb(fail), ["try"])
    assert quiet.exit_code == Exit.SOFTWARE
    assert quiet.stderr.splitlines() == [
        "dropr: internal error: ZeroDivisionError: halves of nothing; run with -vv for the traceback"
    ]
    for arguments in (["-vv", "try"], ["try", "-vv"], ["-v", "try", "-v"]):
        loud = CliRunner().invoke(with_verb(fail), arguments)
        assert loud.exit_code == Exit.SOFTWARE
        assert "Traceback" in loud.stderr


def test_an_error_text_cannot_steer_the_terminal():
    """What a mistake quotes is shown without control characters."""

    def fail():
        raise errors.UsageError("peer \x1b[2J is\x9b odd")

    result = CliRunner().invoke(with_verb(fail), ["try"])
    assert result.exit_code == Exit.USAGE
    assert result.stderr == "dropr: peer \\x1b[2J is\\x9b odd [usage-error]\n"


def test_ctrl_c_ends_with_130():
    """An interrupted verb ends as shells count it, in one line."""

    def fail():
        raise KeyboardInterrupt

    result = CliRunner().invoke(with_verb(fail), ["try"])
    assert result.exit_code == INTERRUPTED
    assert result.stderr.strip() == "dropr: interrupted"


def test_who_stops_reading_ends_the_verb_quietly():
    """When the reader of the output goes away, the verb ends with 141 and says nothing."""
    reading, writing = os.pipe()
    os.close(reading)
    code = (
        "import click, sys\n"
        "from dropr_core.cli.app import application\nfrom dropr_core.cli.common import verb\n"
        "app = application()\n"
        "@verb('try', config=False)\n"
        "def try_verb():\n"
        "    for _ in range(100000): click.echo('x' * 100)\n"
        "app.get_command = lambda ctx, name: try_verb\n"
        "app.main(['try'])\n"
    )
    with os.fdopen(writing, "wb") as stream:
        done = subprocess.run([sys.executable, "-c", code], stdout=stream, stderr=subprocess.PIPE, check=False)
    assert done.returncode == BROKEN_PIPE
    assert done.stderr == b""


def test_a_small_answer_into_a_closed_pipe_is_quiet_too():
    """Output that is flushed only at the end meets the closed pipe there: the same end."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as stream:
        done = subprocess.run(
            [sys.executable, "-m", "dropr_core", "--version"], stdout=stream, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == BROKEN_PIPE
    assert done.stderr == b""


def test_quiet_and_verbose_count_together():
    """-v counts up and -q down, before and after the verb."""
    seen = []

    @click.pass_obj
    def look(settings):
        seen.append(settings.verbosity)

    for arguments in (["try"], ["-v", "try", "-vv"], ["try", "-q"]):
        assert CliRunner().invoke(with_verb(look), arguments, obj=Settings()).exit_code == 0
    assert seen == [0, 3, -1]


# ── words ────────────────────────────────────────────────────────────────────────────────────────


def test_ages_and_sizes_are_short():
    """Ages have two steps at most, sizes three digits or so."""
    ages = [0, 59.9, 60, 200, 3600, 7260, 86400, 187200, None]
    assert [words.say_age(a) for a in ages] == ["0s", "59s", "1m", "3m20s", "1h", "2h1m", "1d", "2d4h", "-"]
    assert [words.say_size(s) for s in (0, 17, 1536, 200 * 1024, 3 * 2**30)] == [
        "0 B", "17 B", "1.5 KiB", "200 KiB", "3.0 GiB",
    ]  # fmt: skip


def test_a_table_shows_texts_as_they_are(capsys):
    """Cells are neither markup nor terminal commands, and in a pipe no cell is cut or wrapped."""
    words.echo_table(["id", "reason"], [["1", "[bold]no[/] \x1b[2J" + "x" * 300]])
    out = capsys.readouterr().out
    assert "[bold]no[/] \\x1b[2J" + "x" * 300 in out
    assert len(out.splitlines()) == 2


def test_bodies_in_json_are_text_or_base64():
    """UTF-8 is text, everything else base64, and both keys are always there."""
    assert words.text_or_base64("ä".encode()) == {"body": "ä", "body_base64": None}
    assert words.text_or_base64(b"\xff") == {"body": None, "body_base64": "/w=="}
    assert words.text_or_base64(None) == {"body": None, "body_base64": None}


@pytest.mark.parametrize("head", [{}, {"node": "shop"}])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_streamed_list_is_one_json_document(capsys, head, count):
    """A list written item by item is valid JSON, whatever its length."""
    words.echo_json_list(head, "messages", ({"n": n} for n in range(count)))
    assert json.loads(capsys.readouterr().out) == {**head, "messages": [{"n": n} for n in range(count)]}


def test_headers_are_split_at_the_first_equals_sign():
    """name=value: the value may hold more equals signs or be empty; without one it is a mistake."""
    assert PAIR.convert("a=b=c", None, None) == ("a", "b=c")
    assert PAIR.convert("a=", None, None) == ("a", "")
    for wrong in ("a", "=b"):
        with pytest.raises(click.BadParameter):
            PAIR.convert(wrong, None, None)


# ── reference ────────────────────────────────────────────────────────────────────────────────────


def test_the_reference_is_up_to_date():
    """docs/cli.md is what the commands say of themselves now."""
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert text == reference(), "run: python -m dropr_core.cli.reference > docs/cli.md"


def test_the_reference_has_every_verb_option_and_exit_code():
    """Nothing that the command line takes, and no code that it ends with, is missing from docs/cli.md."""
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name in VERBS:
        command = application().get_command(None, name)
        section = text.split(f"\n### {name}\n", 1)[1].split("\n##", 1)[0]
        for parameter in command.params:
            for word in (*parameter.opts, *parameter.secondary_opts):
                if word.startswith("--") and word not in {"--config", "--json", "--verbose", "--quiet"}:
                    assert word in section, (name, word)
        assert ("`--json`" in section) == any("--json" in p.opts for p in command.params), name
    for code in Exit:
        assert f"| {int(code)} |" in text
