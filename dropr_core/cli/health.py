"""The verbs that tools ask: health, metrics.

Owns how they answer on a command line. What health means and which metrics there are is in the monitor.
"""

from pathlib import Path

import click

from dropr_core.cli.common import load_config, opened, verb
from dropr_core.cli.failures import Stop
from dropr_core.cli.output import echo, echo_json, write_bytes
from dropr_core.system.exit_codes import Exit


@verb("health", keys="`ok`; `problems`, a list of sentences; `processes`, a list of `role` and `pid`.")
@click.option("--ready", "want_ready", is_flag=True, help="Ask also whether it can take work.")
@click.pass_context
def health_verb(ctx: click.Context, config_file: Path | None, as_json: bool, want_ready: bool) -> None:
    """Ask whether what runs of this node makes progress; exit code 0: yes, 1: no.

    For containers and tools that restart things. With --ready: whether everything that `run:` names is there, nothing
    drains, and messages can be stored. Opens no store.
    """
    from dropr_core.monitor.health import live, ready

    config = load_config(config_file)
    health = ready(config) if want_ready else live(config)
    if as_json:
        processes = [{"role": role, "pid": pid} for role, pid in health.processes]
        echo_json({"ok": health.ok, "problems": list(health.problems), "processes": processes})
    elif health.ok:
        who = ", ".join(f"{role} {pid}" for role, pid in health.processes)
        echo(f"node {config.node} is {'ready' if want_ready else 'alive'}: {who}")
    else:
        for problem in health.problems:
            echo(problem)
    ctx.exit(Exit.OK if health.ok else Exit.FAILED)


@verb("metrics")
@click.option(
    "--textfile", metavar="PATH", type=click.Path(path_type=Path, dir_okay=False),
    help="Write them into this file at once, for node_exporter's textfile collector (a name that ends in .prom).",
)  # fmt: skip
def metrics_verb(config_file: Path | None, textfile: Path | None) -> None:
    """Print this node's metrics for Prometheus. Needs the package's extra `metrics`.

    `/metrics` of the node's page has the same (`monitor:` in the YAML).
    """
    from dropr_core.monitor.exposition import metrics_of, write_textfile

    with opened(config_file) as node:
        text = metrics_of(node)
    if textfile is None:
        write_bytes(text)
    else:
        try:
            write_textfile(textfile, text)
        except OSError as error:
            problem = f"{textfile} cannot be written: {error.strerror}; what stood there before is left as it is"
            raise Stop(Exit.CANTCREAT, problem) from None
