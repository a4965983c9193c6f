"""``manage.py dropr_worker``: runs the tasks that come to this node.

Owns the words of the command line and the log of the process.
"""

import logging
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.utils.autoreload import get_child_arguments

from dropr_core.errors import DroprError
from dropr_core.system.loading import unforked
from dropr_django.configuration import node_config, node_file
from dropr_django.worker import run_worker, worker_config

LEVELS = {0: logging.WARNING, 1: logging.INFO}


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    """Of Django."""

    help = (
        "Runs the tasks whose queues end at this project's node (the setting DROPR), until it gets SIGTERM or SIGINT: "
        "then what is at hand may end. SIGHUP: a fresh start where something starts it again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Those of the worker; what is not said is as in the YAML."""
        parser.add_argument("--queue", action="append", default=[], metavar="NAME", help="Only this queue; repeatable.")
        parser.add_argument("--threads", type=int, help="Tasks at once in each process.")
        parser.add_argument("--processes", type=int, help="How many processes are kept alive.")
        parser.add_argument("--reload", action="store_true", help="For development: start afresh when code changes.")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run. Ends with dropr's exit codes."""
        _log_somewhere(options["verbosity"])
        for name in ("threads", "processes"):
            if options[name] is not None and options[name] < 1:
                raise CommandError(f"--{name}: at least 1")
        try:
            config = worker_config(node_config(), options["queue"], options["threads"], options["processes"])
            if options["reload"]:
                with unforked:
                    from dropr_core.cli.autoreload import watch_command

                command = [word for word in get_child_arguments() if word != "--reload"]
                code = watch_command(command, node_file().absolute())
            else:
                code = run_worker(config, node_file().absolute(), get_child_arguments)
        except (ImproperlyConfigured, DroprError) as error:
            raise CommandError(str(error)) from error
        sys.exit(code)


def _log_somewhere(verbosity: int) -> None:
    """To standard error, where the setting LOGGING says nothing of it: a worker that is silent helps nobody."""
    log = logging.getLogger("dropr")
    if not log.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        log.addHandler(handler)
    if log.level == logging.NOTSET:
        log.setLevel(LEVELS.get(verbosity, logging.DEBUG))
