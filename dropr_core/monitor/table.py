"""Every route of the monitor, in one place: who adds something to be looked at adds its routes here."""

import logging
from collections.abc import Callable

from dropr_core.api.runtime import Runtime
from dropr_core.monitor.acting import acting_routes
from dropr_core.monitor.looking import looking_routes
from dropr_core.monitor.metrics_routes import health_routes, metrics_routes
from dropr_core.monitor.pages import page_routes
from dropr_core.monitor.routes import Route
from dropr_core.monitor.schedule_routes import schedule_routes

Maker = Callable[[Runtime, logging.Logger], list[Route]]
"""Makes the routes of one subject, over an open node. Opens nothing and starts nothing."""

MAKERS: tuple[Maker, ...] = (
    page_routes, looking_routes, acting_routes, schedule_routes, metrics_routes, health_routes,
)  # fmt: skip


def routes_of(runtime: Runtime, log: logging.Logger) -> list[Route]:
    """All of them."""
    return [route for make in MAKERS for route in make(runtime, log)]
