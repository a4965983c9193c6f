"""What tools ask the monitor for: `/metrics`, with the token, and `/livez` and `/readyz`, without it.

Owns these routes. Must not know which metrics there are, nor what health means.
"""

import logging

from dropr_core.api.runtime import Runtime
from dropr_core.errors import PluginError
from dropr_core.monitor.exposition import MEDIA_TYPE, metrics_of
from dropr_core.monitor.health import Health, live, ready
from dropr_core.monitor.routes import Answer, Refused, Request, Route, as_json


def metrics_routes(runtime: Runtime, log: logging.Logger) -> list[Route]:  # noqa: ARG001 - as every maker of routes
    """Figures for Prometheus."""

    def metrics(_request: Request) -> Answer:
        try:
            return Answer(metrics_of(runtime), MEDIA_TYPE)
        except PluginError as error:
            raise Refused(501, str(error)) from error

    return [Route("GET", "/metrics", metrics)]


def health_routes(runtime: Runtime, log: logging.Logger) -> list[Route]:  # noqa: ARG001 - as every maker of routes
    """200 or 503 for who restarts processes and who sends traffic. Names of processes are told, and nothing else."""

    def answer(health: Health) -> Answer:
        return as_json({"ok": health.ok, "problems": list(health.problems)}, 200 if health.ok else 503)

    return [
        Route("GET", "/livez", lambda _request: answer(live(runtime.config)), open=True),
        Route("GET", "/readyz", lambda _request: answer(ready(runtime.config)), open=True),
    ]
