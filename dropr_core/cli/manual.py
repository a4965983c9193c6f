"""The manual pages, written from the commands themselves, and the verb that puts them where man finds them.

Owns their form: dropr(1) and one dropr-VERB(1) for each verb, in the macros of man(7). Must not know a verb.
"""

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from dropr_core.cli.common import Verb, verb
from dropr_core.cli.failures import Stop
from dropr_core.cli.output import echo, echo_json
from dropr_core.system.exit_codes import Exit

Sections = Sequence[tuple[str, Sequence[str]]]
"""Heading → verbs, as help shows them."""


@verb("manual", keys="`directory`, `pages` (names of the files that were written).", config=False)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to. Default: ~/.local/share/man/man1, where man looks.",
)
@click.pass_context
def manual_verb(ctx: click.Context, as_json: bool, directory: Path | None) -> None:
    """Write manual pages for man: dropr(1), and one for each verb, such as dropr-send(1)."""
    app = ctx.find_root().command
    assert isinstance(app, click.Group)
    place = Path.home() / ".local" / "share" / "man" / "man1" if directory is None else directory
    made = pages(app, ctx.find_root())
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name, text in made.items():
            (place / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Stop(Exit.CANTCREAT, f"{error.filename or place}: {error.strerror}") from None
    if as_json:
        echo_json({"directory": str(place), "pages": sorted(made)})
        return
    echo(f"wrote {len(made)} pages to {place}; try: man dropr-send")


def pages(app: click.Group, ctx: click.Context) -> dict[str, str]:
    """File name → page, for the application and each of its verbs."""
    commands = {name: command for name in app.list_commands(ctx) if (command := app.get_command(ctx, name)) is not None}
    found = {"dropr.1": _page(_overview(app, commands), "dropr")}
    for name, command in commands.items():
        found[f"dropr-{name}.1"] = _page(_verb(name, command, ctx), f"dropr-{name}")
    return found


def _page(lines: Iterator[str], name: str) -> str:
    from dropr_core import __version__

    return (
        "\n".join([f'.TH "{name.upper()}" "1" "{time.strftime("%Y-%m-%d")}" "dropr {__version__}" "dropr"', *lines])
        + "\n"
    )


def _overview(app: click.Group, commands: dict[str, click.Command]) -> Iterator[str]:
    first, *rest = (app.help or "").split("\n\n")
    yield from (".SH NAME", rf"dropr \- {_text(first.rstrip('.'))}")
    yield from (".SH SYNOPSIS", r".B dropr", r"\fIVERB\fR [\fIOPTION\fR]... [\fIARGUMENT\fR]...")
    yield ".SH DESCRIPTION"
    yield from _paragraphs("\n\n".join(rest))
    yield ".SH VERBS"
    for name, command in commands.items():
        yield from (".TP", rf".BR dropr\-{_text(name)} (1)", _text(command.get_short_help_str(500)))
    yield from _options([param for param in app.params if isinstance(param, click.Option)])
    yield ".SH ENVIRONMENT"
    yield from (".TP", ".B DROPR_CONFIG", "The node's YAML file, where no \\-c names one.")
    yield from (".TP", ".B DROPR_LOG", "Form of the log: text or json.")


def _verb(name: str, command: click.Command, ctx: click.Context) -> Iterator[str]:
    yield from (".SH NAME", rf"dropr\-{_text(name)} \- {_text(command.get_short_help_str(500).rstrip('.'))}")
    yield ".SH SYNOPSIS"
    yield rf".B dropr {_text(name)}"
    with click.Context(command, parent=ctx, info_name=name) as inner:
        yield _text(" ".join(command.collect_usage_pieces(inner)))
    yield ".SH DESCRIPTION"
    yield from _paragraphs(command.help or "")
    yield from _options([param for param in command.params if isinstance(param, click.Option)])
    if isinstance(command, Verb) and command.keys:
        yield ".SH OUTPUT"
        yield from _paragraphs(f"With --json: {command.keys.replace('`', '')}")
    yield from (".SH SEE ALSO", ".BR dropr (1)")


def _options(options: Sequence[click.Option]) -> Iterator[str]:
    if options:
        yield ".SH OPTIONS"
    for option in options:
        names = ", ".join([*option.opts, *option.secondary_opts])
        if not option.is_flag and not option.count:
            names += f" {option.metavar or option.type.name.upper()}"
        yield from (".TP", rf".B {_text(names)}", _text(option.help or ""))


def _paragraphs(text: str) -> Iterator[str]:
    for number, part in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        yield _text(" ".join(part.split()))


def _text(text: str) -> str:
    """Prose as roff wants it: a dash is one that can be copied, and no line begins like a request."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("`", "")
    return rf"\&{text}" if re.match(r"[.']", text) else text
