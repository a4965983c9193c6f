"""The reference of the command line, docs/cli.md, written from the commands themselves.

Owns its form. ``python -m dropr_core.cli.reference`` prints it; a test holds the file to it.
"""

import sys

import click

from dropr_core.cli.app import SECTIONS, application
from dropr_core.cli.common import Verb
from dropr_core.cli.failures import BROKEN_PIPE, INTERRUPTED, TIMED_OUT
from dropr_core.system.exit_codes import Exit

INTRODUCTION = """# The command line

This page is written by `python -m dropr_core.cli.reference > docs/cli.md`; do not edit it.

`dropr VERB [OPTION]... [ARGUMENT]...`; `dropr VERB --help` explains one verb. `python -m dropr_core` is the same.

- **Configuration.** `-c FILE` (`--config FILE`), else `$DROPR_CONFIG`, else `./dropr.yaml`. Every verb takes it but
  `schema`, `plugins`, `explain`, `init`, `keygen`, `demo`, `new`, `completion` and `manual`, which need no node;
  `bench` does without one.
- **Loudness.** Every verb takes `-v` (`--verbose`: say more; twice: also tracebacks and what libraries say), `-q`
  (`--quiet`: warnings only) and `-h` (`--help`). `dropr --version` says the version.
- **Durations** are `250ms`, `30s`, `1h30m`, `5d`; a bare number is seconds. **Ids** are UUIDs.
- **JSON.** With `--json` a verb prints one JSON document to standard output and nothing else; its keys are stable: some
  may be added, none is removed or changes its meaning. `receive` prints one document a line, for each message.
- **Text** is for people and may change. Whatever comes from a peer is shown without control characters.
- **Mistakes** go to standard error as `dropr: what happened, to what, what to do now [code]`; `dropr explain CODE`
  says more, and the exit code says their kind.
- **Logs** of the processes go to standard error, one line for each event: `2026-11-21 09:00:01 daemon  message`.
  In the system's journal the time is left to the journal.
- **Looking changes nothing.** `check`, `config`, `schema`, `plugins`, `status`, `count`, `list`, `show`, `cat`,
  `receive --peek` and `fsck` without `--repair` open the node read-only, beside whatever runs.
"""

COMMON = frozenset({"--config", "--json", "--verbose", "--quiet"})
"""Options that the introduction explains for all verbs."""

CODES = (
    (Exit.OK, "done; a process: stopped because it was asked to"),
    (Exit.FAILED, "the command did its work and the answer is no: not processed in time, too late to cancel"),
    (Exit.USAGE, "the command line, or what was to be sent, cannot work as it stands"),
    (Exit.DATA, "a stored message is damaged"),
    (Exit.NO_INPUT, "a file or message that was named is not there"),
    (Exit.UNAVAILABLE, "another process holds what only one may hold, or a peer is in the way"),
    (Exit.SOFTWARE, "a bug in dropr or in a plugin; `-vv` shows the traceback"),
    (Exit.OS_ERROR, "the system refused"),
    (Exit.CANTCREAT, "a file exists already or cannot be made"),
    (Exit.IO_ERROR, "the store or the disk failed"),
    (Exit.TEMPFAIL, "the queue is full or busy, try again later; a process: start me again"),
    (Exit.PROTOCOL, "the other side said something that is not dropr"),
    (Exit.NO_PERMISSION, "this user may not do it"),
    (Exit.CONFIG, "the configuration is wrong; every mistake is listed"),
    (TIMED_OUT, "`receive --wait`: the time was over and no message had come"),
    (INTERRUPTED, "interrupted (Ctrl-C)"),
    (BROKEN_PIPE, "who read the output went away"),
)


def reference() -> str:
    """The whole page."""
    app = application()
    parts = [INTRODUCTION]
    with click.Context(app, info_name="dropr") as ctx:
        for heading, verbs in SECTIONS:
            parts.append(f"## {heading}\n")
            for name in verbs:
                command = app.get_command(ctx, name)
                assert command is not None
                parts.append(_verb(name, command))
    parts.append("## Exit codes\n")
    parts.append("| code | name | meaning |\n|---|---|---|")
    parts.extend(f"| {int(code)} | {code.name if isinstance(code, Exit) else '–'} | {text} |" for code, text in CODES)
    return "\n".join(parts) + "\n"


def _verb(name: str, command: click.Command) -> str:
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    usage = " ".join(["dropr", name, "[OPTION]...", *(_argument(argument) for argument in arguments)])
    lines = [f"### {name}", "", f"`{usage}`", "", _paragraphs(command.help or ""), ""]
    options = [p for p in command.params if isinstance(p, click.Option) and p.opts[-1] not in COMMON]
    if options:
        lines += ["| option | meaning |", "|---|---|", *map(_option, options)]
    if isinstance(command, Verb) and command.keys:
        lines += ["", f"`--json`: {command.keys}"] if options else [f"`--json`: {command.keys}"]
    return "\n".join([*lines, ""])


def _argument(argument: click.Argument) -> str:
    word = argument.metavar or (argument.name or "").upper()
    return word if argument.required else f"[{word}]"


def _option(option: click.Option) -> str:
    names = ", ".join(option.opts)
    if option.secondary_opts:
        names += " / " + ", ".join(option.secondary_opts)
    if not option.is_flag and not option.count:
        names += " " + (option.metavar or _kind(option))
    text = option.help or ""
    if option.show_default and option.default is not None:
        text += f" Default: {option.default}."
    return f"| `{names}` | {text.replace('|', chr(92) + '|')} |"


def _kind(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return "/".join(str(choice) for choice in option.type.choices)
    if isinstance(option.type, click.IntRange):
        return "N"
    return {"path": "PATH"}.get(option.type.name, option.type.name.upper())


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


if __name__ == "__main__":
    sys.stdout.write(reference())
