"""Plain HTTP for every language: send, receive and settle with curl.

Owns the plugin's surface: `Options`, the hook, the gateway. Must not know ASGI or HTTP.
"""

from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.contracts.gateway import ASGIApplication, Desk, WebGateway
from dropr_core.hookspecs import hookimpl
from dropr_core.system.loading import unforked
from dropr_gateway_http.options import Options, User

__all__ = ["HttpGateway", "Options", "User", "dropr_gateway"]


class HttpGateway(WebGateway):
    """One instance serves all listeners of a node."""

    default_listen = "http://127.0.0.1:8480"
    large = True

    def __init__(self, options: Options, context: Context) -> None:
        self._options, self._log = options, context.log
        self.authenticates = bool(options.users)

    def application(self, desk: Desk) -> ASGIApplication:
        """See the contract."""
        with unforked:
            from dropr_gateway_http.app import HttpApp

        return HttpApp(desk, self._options, self._log)


@hookimpl
def dropr_gateway(options: Any, context: Context) -> HttpGateway:
    """The hook."""
    return HttpGateway(options, context)
