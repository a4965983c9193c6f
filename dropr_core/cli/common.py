"""What the verbs share: their options, how a node is opened for them, the types of their arguments.

Owns `Verb` (a click command that also knows the keys of its JSON), -c, --json, -v and -q. Must not
know any single verb. Imports only click at the top: every verb pays for what stands here.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dropr_core.cli.failures import Stop
from dropr_core.errors import DroprError
from dropr_core.system.exit_codes import Exit
from dropr_core.system.loading import collector_paused

if TYPE_CHECKING:
    from dropr_core.api.runtime import Runtime
    from dropr_core.cli.logs import Line
    from dropr_core.config.node import NodeConfig
    from dropr_core.config.schema import LogsConfig

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_FILE = "dropr.yaml"
LOG_FORMS = ("text", "json", "syslog")


class Settings:
    """What was asked for on the command line before any verb is reached."""

    def __init__(self) -> None:
        self.verbosity = 0
        self.log_form = os.environ.get("DROPR_LOG", "")
        """One of LOG_FORMS; empty: as the configuration says."""
        self.closed: frozenset[str] = frozenset()
        """The standard streams that the caller had closed."""


class Verb(click.Command):
    """One verb. ``keys`` says what its JSON has, for the reference; empty: it has no --json."""

    def __init__(self, *arguments: Any, keys: str = "", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.keys = keys
        self.params = [*self.params, *verbosity_options()]


def verb(name: str, *, keys: str = "", config: bool = True, **options: Any) -> Callable[[Callable[..., Any]], Verb]:
    """Make a function a verb with -c/--config (passed as ``config_file``) and, with ``keys``, --json (``as_json``)."""

    def decorate(function: Callable[..., Any]) -> Verb:
        if keys:
            function = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(function)
        if config:
            function = config_option(function)
        settings = {"help_option_names": ["-h", "--help"]}
        return click.command(name, cls=Verb, keys=keys, context_settings=settings, **options)(function)

    return decorate


def config_option(function: F) -> F:
    """Add -c/--config."""
    return click.option(
        "-c", "--config", "config_file", metavar="FILE", envvar="DROPR_CONFIG",
        type=click.Path(path_type=Path, dir_okay=True),
        help=f"The node's YAML file. Default: $DROPR_CONFIG, else ./{DEFAULT_FILE}.",
    )(function)  # fmt: skip


def verbosity_options() -> list[click.Option]:
    """-v and -q; they count wherever they stand."""

    def louder(ctx: click.Context, _param: click.Parameter, value: int) -> None:
        ctx.ensure_object(Settings).verbosity += value

    def quieter(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        ctx.ensure_object(Settings).verbosity -= int(value)

    def form(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.ensure_object(Settings).log_form = value
            os.environ["DROPR_LOG"] = value  # for the children of an angel

    return [
        click.Option(
            ["-v", "--verbose"], count=True, expose_value=False, callback=louder,
            help="Say more; twice: also tracebacks and what libraries say.",
        ),
        click.Option(
            ["--log"], type=click.Choice(LOG_FORMS), expose_value=False, callback=form,
            help="Form of the log: lines for people, JSON objects, or to syslog. Default: $DROPR_LOG, else `logs:`.",
        ),
        click.Option(
            ["-q", "--quiet"], is_flag=True, expose_value=False, callback=quieter, help="Say warnings only."
        ),
    ]  # fmt: skip


# ── configuration and node ───────────────────────────────────────────────────────────────────────


def find_config(config_file: Path | None) -> Path:
    """The file to load: the one named, else ./dropr.yaml; stops with exit 78 if there is none."""
    if config_file is not None:
        return config_file
    path = Path(DEFAULT_FILE)
    if not path.is_file():
        raise Stop(
            Exit.CONFIG,
            f"no configuration: name a file with -c or $DROPR_CONFIG, or make ./{DEFAULT_FILE} by 'dropr init'",
        )
    return path


def load_config(config_file: Path | None) -> "NodeConfig":
    """The node's configuration; ConfigError with every mistake."""
    path = find_config(config_file)
    with collector_paused():
        from dropr_core.config.node import load

        return load(path)


@contextmanager
def opened(config_file: Path | None, *, change: bool = False) -> Iterator["Runtime"]:
    """The node, open for a verb: only to look, unless the verb will ``change`` something."""
    ctx = click.get_current_context(silent=True)
    with collector_paused():
        config = load_config(config_file)
        from dropr_core.api.runtime import Runtime

        if ctx is not None:
            start_log(ctx, "dropr", least=-1, node=config.node)
    if not change and not (config.data / "node.id").exists():
        raise Stop(
            Exit.NO_INPUT,
            f"node {config.node} has nothing yet: {config.data} is made by its first 'dropr send' or by 'dropr up'",
        )
    with collector_paused():
        runtime = Runtime.open(config, read_only=not change)
    with runtime as node:
        yield node


def start_log(
    ctx: click.Context, role: str, *, name: str = "", least: int = 0, node: str = "", logs: "LogsConfig | None" = None
) -> "Line":
    """Log until the verb ends; ``least`` is what -v counts from, ``name`` that of one among several of its role.

    ``logs``: what the configuration of ``node`` says, for processes that run for long; what verbs say to the person
    who typed them stays on the error stream. Returns the form of its lines, which can be told secrets to hide.
    """
    from dropr_core.cli.logs import to_error_stream

    settings = ctx.ensure_object(Settings)
    form = settings.log_form or (logs.form if logs else "text")
    if form not in LOG_FORMS:
        raise Stop(Exit.USAGE, f"$DROPR_LOG is {form!r}; use {', '.join(LOG_FORMS[:-1])} or {LOG_FORMS[-1]}")
    instead = None
    if logs is not None:
        least += {"warning": -1, "info": 0, "debug": 1}[logs.level]
        if form == "syslog":
            from dropr_core.cli.syslog import SyslogHandler

            instead = partial(SyslogHandler, address=logs.syslog, facility=logs.facility)
    stream = to_error_stream(
        name or role, settings.verbosity + least, form=form, own=role == "worker", node=node, instead=instead
    )
    return ctx.with_resource(stream).line


# ── types of arguments ───────────────────────────────────────────────────────────────────────────


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.4
    """Seconds (float) from ``30``, ``30s``, ``1h30m``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read one; a bare number is seconds."""
        from dropr_core.config.units import parse_duration

        try:
            try:
                return parse_duration(float(value))
            except ValueError:
                return parse_duration(value)
        except DroprError as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.4
    """A moment with its time zone: ``2026-12-24T18:00:00+01:00``, ``2026-12-24 17:00Z``."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read one, as ISO 8601 writes it."""
        from datetime import datetime

        try:
            moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no moment; write it like 2026-12-24T18:00:00+01:00", param, ctx)
        if moment.utcoffset() is None:
            self.fail(
                f"{value!r} has no time zone, so nobody knows which moment that is; write "
                f"{moment.isoformat()}Z for UTC, or the difference to it such as {moment.isoformat()}+01:00",
                param,
                ctx,
            )
        return moment


class Pair(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.4
    """A header: ``name=value``."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Read one; the value may have more equals signs."""
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not equals or not name:
            self.fail(f"{value!r} is not of the form name=value", param, ctx)
        return name, text


DURATION = Duration()
MOMENT = Moment()
PAIR = Pair()
