"""The verbs that look at configuration and plugins: check, config, schema, plugins.

Owns how their answers are shown. None of them opens a store or a connection.
"""

import json
from pathlib import Path
from typing import Any

import click

from dropr_core.cli.common import find_config, load_config, verb
from dropr_core.cli.output import echo, echo_json, echo_table, say_count


@verb(
    "check",
    keys="`ok` (true or false), `file`, `node` (null if it is not ok), `problems` and `warnings` (lists of texts).",
)
@click.pass_context
def check_verb(ctx: click.Context, config_file: Path | None, as_json: bool) -> None:
    """Check the configuration: every mistake at once, with its line and what would be right. Exit 78 if any.

    Also what would fail only later: plugins that are not installed, handlers that cannot be imported (they are, for
    this), programs that are not there, addresses that no transport takes or at which a gateway may not listen.
    """
    from dropr_core.api.working import rehearse_handlers
    from dropr_core.config.exposure import find_exposures
    from dropr_core.errors import ConfigError
    from dropr_core.gateway.listening import rehearse_gateways
    from dropr_core.monitor.host import rehearse_monitor
    from dropr_core.outboxes.rehearsal import rehearse_outboxes
    from dropr_core.plugin.confidential import secrets_of
    from dropr_core.plugin.rehearsal import rehearse
    from dropr_core.system.exit_codes import Exit

    path = find_config(config_file)
    try:
        config = load_config(path)
        if problems := rehearse(
            config,
            rehearse_gateways,
            rehearse_handlers,
            lambda config, _context: rehearse_monitor(config),
            lambda config, _context: rehearse_outboxes(config),
        ):
            raise ConfigError(problems)
    except ConfigError as error:
        if not as_json:
            raise
        echo_json({"ok": False, "file": str(path), "node": None, "problems": list(error.problems), "warnings": []})
        ctx.exit(Exit.CONFIG)
    warnings = [*config.warnings, *find_exposures(config, lambda: (steps for steps, _ in secrets_of(config)))]
    if as_json:
        echo_json({"ok": True, "file": str(path), "node": config.node, "problems": [], "warnings": warnings})
        return
    parts = [
        say_count(len(config.peers), "peer"),
        say_count(len(config.channels), "channel"),
        f"storage {config.storage.use}",
        f"listens on {', '.join(config.listen)}" if config.listen else "listens nowhere",
    ]
    echo(f"{path}: node {config.node} is well: {', '.join(parts)}")
    for warning in warnings:
        echo(f"warning: {warning}")


@verb("config", keys="the effective configuration as one mapping, secrets masked.")
def config_verb(config_file: Path | None, as_json: bool) -> None:
    """Show the configuration in effect, defaults filled in; masked: secrets, and what no installed plugin declares."""
    from dropr_core.config.docs import masked
    from dropr_core.plugin.confidential import secrets_of, undeclared_in

    config = load_config(config_file)
    secrets = (steps for steps, _ in secrets_of(config))
    document = masked(config, frozenset((*secrets, *undeclared_in(config))))
    if as_json:
        echo_json(_plain(document))
        return
    import yaml

    click.echo(yaml.safe_dump(_plain(document), sort_keys=False, allow_unicode=False).rstrip("\n"))


@verb("schema", config=False)
def schema_verb() -> None:
    """Print a JSON Schema of the configuration, for editors."""
    from dropr_core.config.docs import schema

    echo_json(schema())


@verb(
    "plugins",
    keys="`plugins`, a list: `kind` (storage, transport, serializer, handler, observer), `name`, `distribution`, "
    "`version`, `abilities` (a list of texts), `error` (why it cannot be used; empty if it can).",
    config=False,
)
def plugins_verb(as_json: bool) -> None:
    """List the plugins installed here, by kind, and try whether each can be used."""
    from dropr_core.plugin.registry import installed

    found = [
        {
            "kind": plugin.kind,
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "abilities": list(plugin.abilities),
            "error": plugin.error,
        }
        for plugin in installed()
    ]
    if as_json:
        echo_json({"plugins": found})
    elif found:
        rows = [
            (p["kind"], p["name"], f"{p['distribution']} {p['version']}", p["error"] or ", ".join(p["abilities"]))
            for p in found
        ]
        echo_table(["kind", "name", "from", "abilities"], rows)
    else:
        echo("no plugins are installed, not even dropr's own: install dropr-core anew")


def _plain(value: object) -> Any:
    """What JSON and YAML can carry: paths, enums and the like as text."""
    return json.loads(json.dumps(value, default=str))
