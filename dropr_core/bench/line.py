"""The line to a peer: how long a signed request and its answer take, and how many bytes a second go there.

Owns asking without leaving anything behind: the peer checks the signature of a request whose session it does not know,
and says so, signed. Nothing is stored there, and no session of a running daemon is touched. Must not open a store.
"""

import logging
import os
import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from dropr_core.bench.row import Row, Say
from dropr_core.bench.samples import Samples
from dropr_core.config.node import NodeConfig
from dropr_core.contracts.context import Context
from dropr_core.delivery.peer_client import PeerClient
from dropr_core.delivery.transports import Transports
from dropr_core.errors import DroprError, Refused
from dropr_core.system.clock import SystemClock

VERB = "measure"
"""A verb that no node has."""
PIECE = 1024 * 1024
"""Bytes of a large request; every node takes as much."""
PATIENCE = 5.0
"""Seconds for one answer; a line that needs more is not measured."""


class Filling(msgspec.Struct, frozen=True, array_like=True):
    """Bytes that mean nothing."""

    data: bytes


def measure_lines(config: NodeConfig, directory: Path, say: Say, *, rounds: int, seconds: float) -> Iterator[Row]:
    """Each peer that this node asks, one after the other, for about ``seconds`` each.

    ``directory``: for what a transport may want to write. A peer that does not answer is a row with its problem.
    """
    log = logging.getLogger("dropr.bench")
    context = Context(node=config.node, data=directory, clock=SystemClock(), log=log, min_free=0)
    transports = Transports(config.transports, context, config.where)
    try:
        for name, peer in config.peers.items():
            if peer.mode == "push" and peer.url:
                say(f"the line to {name}")
                yield from _line(config, name, transports, rounds, seconds)
    finally:
        transports.close()


def _line(config: NodeConfig, name: str, transports: Transports, rounds: int, seconds: float) -> Iterator[Row]:
    peer, posts = config.peers[name], queue.SimpleQueue[Callable[[], None]]()
    url = peer.url or ""
    client = PeerClient(config.node, name, peer.keys, lambda: transports.for_url(url).connect(url), posts.put, PATIENCE)
    try:
        _ask(client, posts, b"")
        trips = [_ask(client, posts, b"") * 1000 for _ in range(max(rounds * 4, 20))]
        yield Row("line", f"{name}: request and answer", "ms", Samples(trips))
        rates, ends, block = list[float](), time.monotonic() + seconds, os.urandom(PIECE)
        while len(rates) <= rounds and (time.monotonic() < ends or len(rates) < 2):
            rates.append(PIECE / _ask(client, posts, block) / 1e6)
        yield Row("line", f"{name}: to the peer, 1 MiB at a time", "MB/s", Samples(rates[1:]))
    except DroprError as error:
        yield Row("line", f"{name}: {url}", "", problem=str(error))
    finally:
        client.close()


def _ask(client: PeerClient, posts: "queue.SimpleQueue[Callable[[], None]]", data: bytes) -> float:
    """Seconds until the signed answer. Raises what kept it from coming."""
    ends: list[object] = []
    started = time.perf_counter()
    client.ask(VERB, Filling(data), Filling, ends.append)
    while not ends:
        try:
            posts.get(timeout=4 * PATIENCE)()
        except queue.Empty:
            raise DroprError(f"no answer within {4 * PATIENCE:.0f} s") from None
    if isinstance(ends[0], Exception) and not (isinstance(ends[0], Refused) and ends[0].signed):
        raise ends[0]
    return time.perf_counter() - started
