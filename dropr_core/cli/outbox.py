"""The verb about tables of messages in the application's own databases: outbox.

Owns its words, and how tables and what was set aside in them are shown. What the tables are is in `transactions/`.
Opens no store: it works while the daemon runs, and where only the database can be reached.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dropr_core.cli.common import load_config, verb
from dropr_core.cli.failures import not_found
from dropr_core.cli.output import echo, echo_json, echo_table, say_count

if TYPE_CHECKING:
    from dropr_core.config.node import NodeConfig
    from dropr_core.config.outboxes import Database, OutboxConfig
    from dropr_core.transactions.databases import Link

ACTIONS = ("install", "list", "redrive")
PAGE = 100


@verb(
    "outbox",
    keys="of install `tables`, a list: `outbox`, `table`, `made` (whether it was not there); of list `outboxes`, a "
    "list: `outbox`, `database`, `table`, `nodes` (a list: `node`, `waiting`, `set_aside`, `oldest` in seconds or "
    "null), `refused` (a list of what was set aside: `row`, `node`, `channel`, `id`, `age` in seconds, `size`, "
    "`problem`); of redrive `redriven` (how many).",
)
@click.argument("action", type=click.Choice(ACTIONS), default="list")
@click.argument("where", required=False, metavar="[NAME|URL]")
@click.option("--print", "only_print", is_flag=True, help="install: print the SQL and change nothing.")
@click.option("--node", metavar="NAME", help="install: whose messages they are, where a row does not say it.")
@click.option("--row", "rows", type=int, multiple=True, help="redrive: this row; repeatable. Default: all.")
def outbox_verb(
    config_file: Path | None,
    as_json: bool,
    action: str,
    where: str | None,
    only_print: bool,
    node: str | None,
    rows: tuple[int, ...],
) -> None:
    """Tables of messages in the application's databases: install them, list what waits and was set aside, redrive that.

    An outbox is meant by its name under `outboxes:`, else all of them; install also takes the URL of a database
    (postgresql://…, sqlite:///FILE).
    """
    for given, word, wanted in ((only_print, "--print", "install"), (node, "--node", "install"),
                                (rows, "--row", "redrive")):  # fmt: skip
        if given and action != wanted:
            raise click.UsageError(f"{word} goes with 'dropr outbox {wanted}'")
    if action == "install":
        _install(config_file, where, node, only_print=only_print, as_json=as_json)
    elif action == "list":
        _list(config_file, where, as_json=as_json)
    else:
        _redrive(config_file, where, rows, as_json=as_json)


# ── which ────────────────────────────────────────────────────────────────────────────────────────


def _configured(config: "NodeConfig", name: str | None) -> "list[tuple[OutboxConfig, Database]]":
    from dropr_core.config.outboxes import read_database

    if name is not None and name not in config.outboxes:
        known = ", ".join(sorted(config.outboxes)) or "none"
        raise not_found(f"no outbox is called {name} (known: {known}): name its database under `outboxes:`")
    found = [one for key, one in config.outboxes.items() if name in (None, key)]
    if not found:
        raise not_found("no outbox is configured: name a database under `outboxes:`")
    return [(one, read_database(one.url, config.where.directory)) for one in found]


@contextmanager
def _linked(database: "Database", node: str) -> "Iterator[Link]":
    from dropr_core.transactions.databases import connect

    link = connect(database, node)
    try:
        yield link
    finally:
        link.close()


# ── installing ───────────────────────────────────────────────────────────────────────────────────


def _install(config_file: Path | None, where: str | None, node: str | None, *, only_print: bool, as_json: bool) -> None:
    from dropr_core.config.outboxes import OutboxConfig, read_database
    from dropr_core.model.names import check_name
    from dropr_core.transactions.outbox_layout import inbox_statements, install, outbox_statements

    if where is not None and "://" in where:
        name = check_name(node, "node") if node is not None else load_config(config_file).node
        chosen = [(OutboxConfig(name="", url=where), read_database(where, Path.cwd()))]
    else:
        config = load_config(config_file)
        name = config.node if node is None else check_name(node, "node")
        chosen = _configured(config, where)
    made: list[dict[str, Any]] = []
    for one, database in chosen:
        kind = _kind(database)
        tables = (
            (one.table, outbox_statements(kind, one.table, name)),
            (one.inbox_table, inbox_statements(kind, one.inbox_table)),
        )
        if only_print:
            for _, statements in tables:
                click.echo("".join(f"{text};\n\n" for text in statements), nl=False)
            continue
        with _linked(database, name) as link:
            for table, statements in tables:
                with link.transaction():
                    new = link.carry_out(install(kind, table, statements))
                made.append({"outbox": one.name, "table": table, "made": new})
                if not as_json:
                    echo(f"{database}: table {table} " + ("is made" if new else "is there already; nothing changed"))
    if as_json and not only_print:
        echo_json({"tables": made})


def _kind(database: "Database") -> Any:
    return database.kind


# ── looking ──────────────────────────────────────────────────────────────────────────────────────


def _list(config_file: Path | None, where: str | None, *, as_json: bool) -> None:
    from dropr_core.transactions.outbox_table import OutboxTable, Refused

    config = load_config(config_file)
    documents = []
    for one, database in _configured(config, where):
        table = OutboxTable(_kind(database), one.table)
        with _linked(database, config.node) as link:
            nodes = [
                {"node": node, "waiting": int(waiting), "set_aside": int(aside),
                 "oldest": None if oldest is None else round(float(oldest), 3)}
                for node, waiting, aside, oldest in link.run(table.count())
            ]  # fmt: skip
            refused, after = list[dict[str, Any]](), 0
            while page := [Refused(*row) for row in link.run(table.refused(after, PAGE))]:
                after = page[-1].seq
                refused += [
                    {"row": row.seq, "node": row.node, "channel": row.channel, "id": _id(row.id),
                     "age": round(float(row.age), 3), "size": row.size, "problem": row.problem}
                    for row in page
                ]  # fmt: skip
        documents.append({"outbox": one.name, "database": str(database), "table": one.table, "nodes": nodes,
                          "refused": refused})  # fmt: skip
    if as_json:
        echo_json({"outboxes": documents})
        return
    for document in documents:
        _show(document)


def _id(text: str) -> str:
    """As ids are shown; the column takes what an application writes."""
    from dropr_core.errors import UsageError
    from dropr_core.model.names import format_id, parse_id

    try:
        return format_id(parse_id(text))
    except UsageError:
        return text


def _show(document: dict[str, Any]) -> None:
    echo(f"outbox {document['outbox']}: table {document['table']} of {document['database']}")
    if not document["nodes"]:
        echo("  nothing waits")
    for node in document["nodes"]:
        since = "" if node["oldest"] is None else f", the oldest for {node['oldest']:.0f} s"
        echo(f"  for {node['node']}: {node['waiting']} waiting{since}; {node['set_aside']} set aside")
    if document["refused"]:
        echo_table(
            ["row>", "channel", "id", "bytes>"],
            [(row["row"], row["channel"], row["id"], row["size"]) for row in document["refused"]],
            notes=[row["problem"] for row in document["refused"]],
        )


# ── acting ───────────────────────────────────────────────────────────────────────────────────────


def _redrive(config_file: Path | None, where: str | None, rows: tuple[int, ...], *, as_json: bool) -> None:
    from dropr_core.model import topics
    from dropr_core.system.notifier import Notifier
    from dropr_core.transactions.outbox_table import OutboxTable

    config = load_config(config_file)
    if rows and where is None and len(config.outboxes) > 1:
        raise click.UsageError("rows are numbered for each outbox: name it")
    count, notifier = 0, Notifier(config.data / "run" / "bell")
    for one, database in _configured(config, where):
        with _linked(database, config.node) as link:
            count += len(link.run(OutboxTable(_kind(database), one.table).redrive(rows)))
        notifier.notify(topics.outbox_table(one.name))
    notifier.close()
    if as_json:
        echo_json({"redriven": count})
    else:
        echo(f"{say_count(count, 'row')} redriven: the daemon tries again")
