"""Servers of one node in this process that answer in turn, as behind a balancer.

Owns `Servers`. Must not know what is tested.
"""

import itertools
import logging
from collections import Counter
from contextlib import ExitStack
from typing import Any

from support.nodes import Place

from dropr_core.delivery.transports import Transports
from dropr_core.processes.server import make_dispatcher
from dropr_core.protocol.frames import HEAD_SIZE, read_head

LOG = logging.getLogger("dropr.test")


class Servers:
    """Servers of one node, each with a store of its own opened; every request goes to the next one."""

    head_size = HEAD_SIZE

    def __init__(self, *places: Place) -> None:
        """One for each of these directories of the node, at the address of the first; one may come twice."""
        self._stack = ExitStack()
        self.asked: Counter[Any] = Counter()
        nodes = [self._stack.enter_context(place.opened()) for place in places]
        runtime = nodes[0].runtime
        transports = Transports(runtime.config.transports, runtime.context(LOG), runtime.config.where)
        self._stack.callback(transports.close)
        self._servers = [make_dispatcher(node.runtime, LOG, transports) for node in nodes]
        self._admits, self._answers = itertools.cycle(range(len(places))), itertools.cycle(range(len(places)))
        for server in self._servers:
            self._stack.callback(server.close)
        for url in runtime.config.listen:
            listener = transports.for_url(url).listen(url, self)
            self._stack.callback(listener.close)
        for server in self._servers:
            self._stack.callback(server.close_waiting)

    def admit(self, head: Any, caller: Any) -> Any:
        """The next one judges it."""
        return self._servers[next(self._admits)].admit(head, caller)

    def answer(self, request: Any, caller: Any) -> Any:
        """The next one answers it."""
        at = next(self._answers)
        self.asked[at] += 1
        self.asked[read_head(bytes(request[:HEAD_SIZE]), 1 << 40).header.verb] += 1
        return self._servers[at].answer(request, caller)

    def close(self) -> None:
        """Stop them."""
        self._stack.close()
