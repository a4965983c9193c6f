"""The verb demo: see with your own eyes that nothing is lost.

Owns its options, the temporary directory and the exit code; the story is in dropr_core/demo/.
"""

import contextlib
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import click

from dropr_core.cli.common import DURATION, Settings, verb
from dropr_core.cli.output import echo_json
from dropr_core.system.exit_codes import Exit


@verb(
    "demo", config=False,
    keys="`good`, `streams` (list of `name`, `sent`, `received`, `lost`, `doubled`, `out_of_order`, `altered`), "
    "`receipts` (`wanted`, `good`, `bad`, `missing`), `recoveries` (list of `what`, `seconds` or null), `missing` "
    "(what did not happen in time), `seconds`, `total_seconds`, `rate`, `file_bytes`, `files_skipped`, `restarts`, "
    "`kept`.",
)  # fmt: skip
@click.option(
    "--files", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR",
    help="Send the files of this directory. Default: the .py files of Python's standard library.",
)  # fmt: skip
@click.option(
    "--messages", type=click.IntRange(100, 10_000_000), default=100_000, show_default=True, help="Small messages."
)
@click.option("--storage", default="sqlite", show_default=True, metavar="NAME", help="The storage of all nodes.")
@click.option(
    "--url", default="http://127.0.0.1:{port}", show_default=True, metavar="TEMPLATE",
    help="Where the nodes listen; its scheme picks the transport, which must run over TCP.",
)  # fmt: skip
@click.option(
    "--site", is_flag=True,
    help="A node on three machines, which share a PostgreSQL database; each of them is killed, whole.",
)  # fmt: skip
@click.option(
    "--postgres", metavar="URL",
    help="With --site: a database for it, which keeps nothing of it. Default: a server of the demo's own.",
)  # fmt: skip
@click.option("--deadline", type=DURATION, default="120s", show_default=True, help="Give up after so long.")
@click.option("--keep", is_flag=True, help="Leave the nodes' directories behind, with their logs.")
@click.pass_context
def demo_verb(
    ctx: click.Context, as_json: bool, files: Path | None, messages: int, storage: str, url: str, site: bool,
    postgres: str | None, deadline: float, keep: bool,
) -> None:  # fmt: skip
    """Three nodes on this machine, real processes, real files, and trouble made on purpose.

    A shop sends files, small messages in mixed priorities, a multicast and jobs that want receipts to a
    warehouse and to berlin. In the middle its daemon and the warehouse's server are killed with SIGKILL,
    and the road between them is closed for some seconds. Ends with a table, and with 0 only if nothing was
    lost, nothing came twice or out of order, every file is what it was, and every receipt came home. The
    nodes are configured as by default, but a peer that does not answer rests for 2 seconds at most.

    With --site the warehouse is three machines behind one name, with nothing in common but a database. Each of them
    is killed in the middle with everything that runs on it, one is cut off from the others, and the database is
    restarted.
    """
    from rich.console import Console

    from dropr_core.demo import report, scenario, screen
    from dropr_core.demo.site import SiteScenario

    if "{port}" not in url:
        raise click.BadParameter("has no {port}; write it like http://127.0.0.1:{port}", param_hint="--url")
    if postgres is not None and not site:
        raise click.UsageError("--postgres goes with --site")
    quiet = ctx.ensure_object(Settings).verbosity < 0
    with ExitStack() as stack:
        stack.enter_context(_interrupted_once())
        if keep:
            home = tempfile.mkdtemp(prefix="dropr-demo-")
        else:
            home = stack.enter_context(tempfile.TemporaryDirectory(prefix="dropr-demo-", ignore_cleanup_errors=True))
        settings = scenario.Settings(
            home=Path(home), files=files, messages=messages, storage=storage, url=url, postgres=postgres,
            deadline=deadline,
        )  # fmt: skip
        with screen.Screen(quiet=quiet) as view:
            story = SiteScenario if site else scenario.Scenario
            outcome = story(settings, view).run()
    if keep:
        import attrs

        outcome = attrs.evolve(outcome, kept=home)
    if as_json:
        echo_json(report.as_json(outcome))
    else:
        console = Console(highlight=False)
        report.print_report(outcome, console if console.is_terminal else Console(highlight=False, width=100))
    ctx.exit(Exit.OK if outcome.verdict.good else Exit.FAILED)


@contextlib.contextmanager
def _interrupted_once() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does; a second one must not keep it from ending its processes."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
