"""dropr: post for programs. A decentralised, durable message queue without a broker.

Owns the public names; everything is imported when it is first asked for, so that a command that
needs little starts fast.

    with dropr_core.open("shop.yaml") as node:
        node.send({"sku": 7}, channel="orders")
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropr_core.system.loading import unforked as _unforked

if TYPE_CHECKING:
    # With "as", so that type checkers take them for public names.
    from dropr_core.api.aio import AsyncNode as AsyncNode
    from dropr_core.api.node import Node as Node
    from dropr_core.api.received import Received as Received
    from dropr_core.api.sent import MessageStatus as MessageStatus
    from dropr_core.api.sent import Sent as Sent
    from dropr_core.builtin.handlers.functions import on as on
    from dropr_core.config.node import NodeConfig as NodeConfig
    from dropr_core.contracts.handler import Work as Work
    from dropr_core.errors import AlreadyProcessed as AlreadyProcessed
    from dropr_core.errors import Conflict as Conflict
    from dropr_core.errors import DeliveryFailed as DeliveryFailed
    from dropr_core.errors import DroprError as DroprError
    from dropr_core.errors import LeaseLost as LeaseLost
    from dropr_core.errors import QueueFull as QueueFull
    from dropr_core.errors import Reject as Reject
    from dropr_core.errors import Retry as Retry
    from dropr_core.errors import WaitTimeout as WaitTimeout
    from dropr_core.hookspecs import hookimpl as hookimpl
    from dropr_core.model.message import Message as Message
    from dropr_core.model.message import State as State

__version__ = "0.2.0.dev0"

_WHERE = {
    "Node": "api.node",
    "NodeConfig": "config.node",
    "Received": "api.received",
    "Sent": "api.sent",
    "MessageStatus": "api.sent",
    "AsyncNode": "api.aio",
    "asgi": "processes.server",
    "Lifespan": "processes.lifespan",
    "on": "builtin.handlers.functions",
    "Message": "model.message",
    "State": "model.message",
    "Work": "contracts.handler",
    "DroprError": "errors",
    "Conflict": "errors",
    "QueueFull": "errors",
    "LeaseLost": "errors",
    "AlreadyProcessed": "errors",
    "DeliveryFailed": "errors",
    "WaitTimeout": "errors",
    "Retry": "errors",
    "Reject": "errors",
    "hookimpl": "hookspecs",
}

__all__ = [*_WHERE, "__version__", "aopen", "open"]  # noqa: PLE0604 - the table above is the list


def open(config: "NodeConfig | Path | str") -> "Node":  # noqa: A001 - reads as dropr.open(...)
    """Open a node by its configuration or the path of its YAML file; use it with ``with``."""
    with _unforked:
        from dropr_core.api.node import Node

    return Node.open(config)


def aopen(config: "NodeConfig | Path | str") -> "AsyncNode":
    """The same for asyncio; use it with ``async with``."""
    with _unforked:
        from dropr_core.api.aio import AsyncNode

    return AsyncNode(config)


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        with _unforked:
            return getattr(import_module(f"dropr_core.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'dropr_core' has no attribute {name!r}")
