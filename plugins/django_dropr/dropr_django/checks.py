"""System checks: what would go wrong at the first task, said by ``manage.py check``, each with an id and a way out.

Owns the ids. Opens no store.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from dropr_core.api.outboxes import same_name
from dropr_core.config.node import NodeConfig
from dropr_core.config.outboxes import read_database
from dropr_core.config.schema import ChannelConfig
from dropr_core.errors import ConfigError, UsageError
from dropr_core.model.names import check_channel
from dropr_core.transactions.of_django import DjangoTransaction
from dropr_django.configuration import EXAMPLE, node_config, node_file
from dropr_django.in_transaction import VENDORS


def check_node(app_configs: Any = None, **_more: Any) -> list[checks.CheckMessage]:  # noqa: ARG001 - Django's signature
    """The setting DROPR, the YAML, the data directory."""
    try:
        file = node_file()
    except ImproperlyConfigured as error:
        return [checks.Error(str(error), hint=f"In the settings: {EXAMPLE}", id="dropr.E001")]
    try:
        config = node_config()
    except ConfigError as error:
        hint = f"dropr check -c {file}"
        return [checks.Error(problem, hint=hint, obj=str(file), id="dropr.E002") for problem in error.problems]
    except OSError as error:
        return [checks.Error(f"{file} cannot be read: {error.strerror}", hint="dropr init makes one", id="dropr.E002")]
    place = _nearest(config.data)
    if not os.access(place, os.W_OK | os.X_OK):
        hint = f"chown it to the user of the web server and of the worker, or name another one: data: in {file}"
        return [checks.Error(f"the node's data directory {place} is not writable", hint=hint, id="dropr.E003")]
    return []


def _nearest(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def check_backend(backend: Any) -> Iterator[checks.CheckMessage]:
    """One entry of the setting TASKS: its queues and their channels."""
    where = f"TASKS[{backend.alias!r}]"
    if "dropr_django" not in {name.removesuffix(".apps.DroprConfig") for name in settings.INSTALLED_APPS}:
        hint = 'INSTALLED_APPS = [..., "dropr_django"]'
        yield checks.Error(f"{where}: dropr_django is not installed", hint=hint, id="dropr.E004")
        return
    if backend.dropr.database not in settings.DATABASES and backend.dropr.database != "default":
        known = ", ".join(sorted(settings.DATABASES)) or "none"
        yield checks.Error(
            f"{where}: OPTIONS names the database {backend.dropr.database!r}", hint=f"Known: {known}.", id="dropr.E005"
        )
    for queue in sorted(set(backend.dropr.channels) - backend.queues) if backend.queues else []:
        hint = f"Add it to QUEUES of {where}, or take it out of CHANNELS."
        yield checks.Error(f"{where}: CHANNELS names {queue!r}, which is no queue", hint=hint, id="dropr.E006")
    try:
        config = node_config()
    except (ImproperlyConfigured, ConfigError, OSError):
        return  # check_node has said it
    if backend.dropr.transactional:
        yield from _check_outbox(config, where, backend.dropr.database)
    for queue in sorted(backend.queues):
        yield from _check_queue(config, where, queue, backend.dropr.channel(queue))


def _check_outbox(config: NodeConfig, where: str, alias: str) -> Iterator[checks.CheckMessage]:
    connection = connections[alias]
    if connection.vendor not in VENDORS:
        hint = "Take TRANSACTIONAL out of OPTIONS: tasks are sent when the transaction has committed, then."
        yield checks.Error(
            f"{where}: TRANSACTIONAL needs a database of postgresql or sqlite; {alias!r} is of {connection.vendor}",
            hint=hint, id="dropr.E012",
        )  # fmt: skip
        return
    place = DjangoTransaction(connection).where()
    databases = [read_database(one.url, config.where.directory) for one in config.outboxes.values()]
    if not any(one.kind == place.kind and same_name(one, place) for one in databases):
        hint = f"In {config.where.name}: outboxes: {{django: {{url: …}}}}, so that the daemon finds what waits there."
        yield checks.Error(f"{where}: no outbox of the node is in the {place}", hint=hint, id="dropr.E013")


def _check_queue(config: NodeConfig, where: str, queue: str, channel: str) -> Iterator[checks.CheckMessage]:
    file = config.where.name or "the node's file"
    try:
        check_channel(channel)
    except UsageError as error:
        hint = 'Name a channel for it: "OPTIONS": {"CHANNELS": {"%s": "…"}}' % queue  # noqa: UP031 - braces
        yield checks.Error(f"{where}: queue {queue!r}: {error}", hint=hint, id="dropr.E007")
        return
    known = config.channels.get(channel)
    if known is None:
        hint = f"In {file}: channels: {{{channel}: {{to: PEER, serializer: json}}}}; without to: it is for this node."
        yield checks.Error(f"{where}: queue {queue!r} has no channel {channel!r} there", hint=hint, id="dropr.E008")
        return
    yield from _check_channel(known, where, f"queue {queue!r}", str(file))


def _check_channel(known: ChannelConfig, where: str, queue: str, file: str) -> Iterator[checks.CheckMessage]:
    place = f"channels.{known.name}"
    if known.serializer is None or known.serializer.use != "json" or known.type is not None:
        hint = f"In {file}: {place}: serializer: json, and no type."
        yield checks.Error(f"{where}: {queue}: its channel does not carry JSON", hint=hint, id="dropr.E009")
    if known.handler is not None and known.handler.use != "django":
        hint = f"Take {place}.handler out of {file}, or write handler: django."
        yield checks.Error(
            f"{where}: {queue}: `dropr worker` would give its tasks to the handler {known.handler.use!r}",
            hint=hint, id="dropr.E010",
        )  # fmt: skip
    if not known.to and not known.retention:
        hint = f"In {file}: {place}: retention: 1d. A task that goes to a peer needs none."
        yield checks.Warning(
            f"{where}: {queue}: get_result() will not know a task any more that is done", hint=hint, id="dropr.W011"
        )
