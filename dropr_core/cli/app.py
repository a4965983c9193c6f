"""The command ``dropr``: finds a verb's file only when that verb is wanted, and ends with its exit code.

Owns the list of verbs in the order in which help shows them, and the one place where exceptions of a
command become an exit code. Must not know what a verb does.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from dropr_core.cli.common import Settings, verbosity_options
from dropr_core.cli.failures import BROKEN_PIPE, Stop, report
from dropr_core.cli.streams import forget_output, open_standard_streams

SECTIONS: tuple[tuple[str, dict[str, str]], ...] = (
    (
        "Run",
        dict.fromkeys(("daemon", "server", "worker", "gateway", "monitor", "angel", "up"), "running"),
    ),
    (
        "Look, changing nothing",
        {
            "check": "checking", "config": "checking", "schema": "checking", "plugins": "checking",
            "status": "status", "top": "top", "dashboard": "dashboard", "count": "status", "topics": "topics",
            "health": "health", "metrics": "health",
            "list": "listing", "show": "listing", "cat": "listing", "trace": "tracing",
            "explain": "explain",
        },
    ),
    (
        "Act",
        {
            "init": "init", "keygen": "init", "install": "install", "invite": "joining", "join": "joining",
            "send": "sending", "receive": "receiving",
            "retry": "peers", "hold": "peers", "release": "peers",
            "schedule": "schedule", "outbox": "outbox",
            "pause": "channels", "unpause": "channels", "subscribe": "topics", "unsubscribe": "topics",
            "cancel": "messages", "bury": "messages", "kick": "messages", "redrive": "messages", "wipe": "wiping",
            "fsck": "fsck",
        },
    ),
    ("Try", {"demo": "demo", "bench": "bench"}),
    ("Extend", {"new": "new"}),
    ("Set up a shell", {"completion": "completion", "manual": "manual"}),
)  # fmt: skip
"""Heading → verb → the file of this package that has it, as the variable ``<verb>_verb``."""


class Application(click.Group):
    """A group whose commands are imported one by one."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Every verb, in the order of help."""
        return [name for _, verbs in SECTIONS for name in verbs]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of a verb, imported now."""
        file = next((verbs[cmd_name] for _, verbs in SECTIONS if cmd_name in verbs), None)
        if file is None:
            return None
        module = importlib.import_module(f"dropr_core.cli.{file}")
        command: click.Command = getattr(module, f"{cmd_name}_verb")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of the first word; for a word that is none, the verb that was probably meant."""
        verbs = self.list_commands(ctx)
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from difflib import get_close_matches

            near = get_close_matches(args[0], verbs, 1)
            meant = f"; did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"there is no verb '{args[0]}'{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs under their headings."""
        for heading, verbs in SECTIONS:
            rows = []
            for name in verbs:
                command = self.get_command(ctx, name)
                if command is not None:
                    rows.append((name, command.get_short_help_str(500)))
            with formatter.section(heading):
                formatter.write_dl(rows)

    def main(  # type: ignore[override]  # this one always ends the process, as click's does when standalone
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run and exit: whatever happens, a code of exit_codes.py and no traceback that nobody asked for."""
        settings = extra.pop("obj", None) or Settings()
        settings.closed = open_standard_streams()
        extra.pop("standalone_mode", None)
        try:
            result = super().main(args, prog_name, standalone_mode=False, obj=settings, **extra)
            sys.stdout.flush()
        except BrokenPipeError:
            forget_output()
            sys.exit(BROKEN_PIPE)
        except SystemExit:
            raise
        except BaseException as error:
            code = report(error, tracebacks=settings.verbosity >= 2)
            try:
                sys.stdout.flush()
            except (OSError, ValueError):
                forget_output()
            sys.exit(code)
        sys.exit(result if isinstance(result, int) else 0)

    # click ends with 1 when it meets a closed pipe, as if the answer were no: it must not meet one.

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        """Read the command line."""
        try:
            return super().make_context(*arguments, **extra)
        except BrokenPipeError:
            forget_output()
            raise Stop(BROKEN_PIPE) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            forget_output()
            raise Stop(BROKEN_PIPE) from None


def _say_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from dropr_core import __version__

        click.echo(f"dropr {__version__}")
        ctx.exit()


def application() -> Application:
    """The command ``dropr``."""
    version = click.Option(
        ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_say_version,
        help="Show the version and exit.",
    )  # fmt: skip
    return Application(
        "dropr",
        params=[*verbosity_options(), version],
        callback=lambda: None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Post for programs: durable messages between machines, without a broker.\n\n"
        "Every verb explains itself: dropr VERB --help. Start with 'dropr init'.",
    )
