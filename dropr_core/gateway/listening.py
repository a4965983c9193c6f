"""Where the gateways of a node listen, and whether they may: said before any door opens.

Owns what is wrong with their `listen:`, for the process as for `dropr check`. Opens nothing.
"""

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from dropr_core.config.node import NodeConfig
from dropr_core.config.schema import GatewayConfig
from dropr_core.contracts.context import Context
from dropr_core.contracts.gateway import STREAMS, WEB, Gateway
from dropr_core.errors import ConfigError, DroprError
from dropr_core.plugin.registry import create
from dropr_core.system.address import Address, read_address, tls_of


def addresses_of(config: GatewayConfig, gateway: Gateway) -> list[Address]:
    """Where a gateway listens. Raises ConfigError with everything that is wrong."""
    schemes = tuple(one for one in (*STREAMS, *WEB) if one in gateway.schemes)
    urls = config.listen or ((gateway.default_listen,) if gateway.default_listen else ())
    place = f"gateways.{config.name}.listen"
    if not urls:
        raise ConfigError([f"{place}: say where it listens, such as {schemes[0]}://127.0.0.1:PORT"])
    found, problems = [], []
    for url in urls:
        address = read_address(url, schemes)
        if isinstance(address, str):
            problems.append(f"{place}: {address}")
        elif not address.local and not gateway.authenticates and not config.insecure:
            problems.append(
                f"{place}: {url} can be reached from elsewhere, and its callers need not prove who they are: listen on "
                "127.0.0.1, make them prove it in the dialect's own way, or say insecure: true"
            )
        else:
            found.append(address)
    if problems:
        raise ConfigError(problems)
    return found


def clashes(found: Iterable[tuple[str, Address]]) -> list[str]:
    """What is wrong with the addresses of all gateways together, each with the name of its gateway: no two of them can
    listen at one place.
    """
    problems, taken = [], list[tuple[str, Address]]()
    for name, address in found:
        for other, before in taken:
            if address.meets(before):
                whose = (
                    "is there twice" if name == other else f"is the place of gateways.{other} ({before.url}) as well"
                )
                problems.append(f"gateways.{name}.listen: {address.url} {whose}; give each a port of its own")
                break
        taken.append((name, address))
    return problems


def rehearse_gateways(config: NodeConfig, context: Context) -> list[str]:
    """Everything that would keep the gateway process of a node from opening its doors, as far as the files say."""
    problems, found = list[str](), list[tuple[str, Address]]()
    for name, one in config.gateways.items():
        try:
            gateway = create("gateway", one.plugin, one.options, context, f"gateways.{name}", config.where)
            addresses = addresses_of(one, gateway)
            found += ((name, address) for address in addresses)
        except ConfigError as error:
            problems += error.problems
            continue
        except DroprError as error:
            problems.append(f"gateways.{name}: {error}")
            continue
        problems += _certificates(name, addresses, config.where.directory)
    return [*problems, *clashes(found), *_with_the_server(config, found)]


def _with_the_server(config: NodeConfig, found: Iterable[tuple[str, Address]]) -> list[str]:
    """The server of the node listens for peers; where it has, no gateway can, whichever of them is started first."""
    peers = []
    for url in config.listen:
        try:
            parts = urlsplit(url)
            if parts.hostname and parts.port:
                peers.append(Address(url, "tcp", parts.hostname, parts.port, "", {}))
        except ValueError:
            continue  # told where transports are asked for their URLs
    return [
        f"gateways.{name}.listen: {address.url} is the place of this node's own `listen:` ({peer.url}) as well; give "
        "each a port of its own"
        for name, address in found
        for peer in peers
        if address.meets(peer)
    ]


def _certificates(name: str, addresses: list[Address], directory: Path) -> list[str]:
    problems = []
    for address in addresses:
        try:
            tls_of(address, directory)
        except DroprError as error:
            problems.append(f"gateways.{name}.listen: {error}")
    return problems
