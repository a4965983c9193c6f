"""The verbs that make two machines peers: invite, join.

Owns the words and which addresses are told. Everything that lasts is done in serving/invitations.py and
delivery/joining.py.
"""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from dropr_core.cli.common import DEFAULT_FILE, DURATION, find_config, load_config, start_log, verb
from dropr_core.cli.failures import Stop
from dropr_core.cli.logs import one_line
from dropr_core.cli.output import echo, echo_json, echo_table
from dropr_core.system.exit_codes import Exit

if TYPE_CHECKING:
    from dropr_core.config.node import NodeConfig
    from dropr_core.contracts.transport import Introduction
    from dropr_core.delivery.joining import Joined, Joining
    from dropr_core.serving.invitations import Invitations, Record

WILDCARDS = frozenset({"0.0.0.0", "::", "*"})  # noqa: S104  # recognised, not listened on
TRY_AGAIN = 0.5
LONGEST = 7 * 86400.0


@verb(
    "invite",
    keys="`token`, `name`, `expires` (seconds since the epoch), `urls`; with --list `invitations`, a list of `name`, "
    "`state` (open, used, expired), `expires`; with --revoke `revoked` (how many).",
)
@click.argument("name", required=False)
@click.option("--expires", type=DURATION, default="15m", show_default=True, help="How long the token is good, once.")
@click.option(
    "--url",
    "urls",
    multiple=True,
    metavar="URL",
    help="Where this node is reached from over there. Default: from `listen:`.",
)
@click.option(
    "--may-write", multiple=True, metavar="CHANNEL", help="What the new peer may write to. Default: everything."
)
@click.option("--list", "show", is_flag=True, help="Show the invitations that are open, and those that ended lately.")
@click.option("--revoke", metavar="NAME", help="Make the open invitations for NAME worthless.")
@click.pass_context
def invite_verb(
    ctx: click.Context, config_file: Path | None, as_json: bool, name: str | None, expires: float,
    urls: tuple[str, ...], may_write: tuple[str, ...], show: bool, revoke: str | None,
) -> None:  # fmt: skip
    """Let another machine become a peer of this node: print a token for `dropr join`.

    The token alone goes to standard output, so that `dropr invite berlin | ssh berlin dropr join -` works.
    Whoever has the token can join as NAME, once, until it expires: carry it as you would carry a password. This node
    must run and be reached from there; the other one may be behind a NAT.
    """
    if sum((name is not None, show, revoke is not None)) != 1:
        raise click.UsageError("say whom to invite: dropr invite NAME (or --list, or --revoke NAME)")
    config = load_config(config_file)
    if show:
        with _invitations(config, read_only=True) as kept:
            _show(kept.all(), as_json)
        return
    if revoke is not None:
        with _invitations(config) as kept:
            count = kept.revoke(revoke)
        if as_json:
            echo_json({"revoked": count})
        else:
            echo(f"revoked: {revoke} cannot join by it any more" if count else f"no invitation for {revoke} is open")
        ctx.exit(0 if count else Exit.FAILED)
    assert name is not None
    start_log(ctx, "dropr", least=-1)
    _invite(find_config(config_file), config, name, expires, urls, may_write or None, as_json)


def _invite(
    file: Path, config: "NodeConfig", name: str, expires: float, urls: tuple[str, ...],
    may_write: tuple[str, ...] | None, as_json: bool,
) -> None:  # fmt: skip
    from dropr_core.config.editing import read_config
    from dropr_core.config.peering import NewPeer, check_writable, with_peer
    from dropr_core.model.names import check_name, check_pattern
    from dropr_core.protocol.invitation import new_invitation, to_token

    check_name(name, "peer")
    for pattern in may_write or ():
        check_pattern(pattern)
    if not 1 <= expires <= LONGEST:
        raise click.UsageError("--expires: from one second to seven days")
    if name == config.node:
        raise Stop(Exit.USAGE, f"{name} is this node itself; name the other machine's node")
    if name in config.peers:
        raise Stop(
            Exit.USAGE, f"{name} is a peer already ({file}); remove it there first, and here it can be invited anew"
        )
    with_peer(read_config(file), file, NewPeer(name, "tried-out-only", {"mode": "pull"}))
    check_writable(file)
    introductions = _introductions(file, config, urls)
    invitation = new_invitation(
        config.node, name, tuple(one.url for one in introductions), tuple(one.certificate for one in introductions)
    )
    with _invitations(config) as kept:
        record = kept.add(invitation, expires, may_write)
    token = to_token(invitation)
    if as_json:
        echo_json({"token": token, "name": name, "expires": record.expires, "urls": list(invitation.urls)})
        return
    until = time.strftime("%H:%M", time.localtime(record.expires))
    # The token alone goes to standard output: `dropr invite berlin | ssh berlin dropr join -`.
    _remark(f"run on the machine of {name}, once, until {until}: dropr join TOKEN, where TOKEN is")
    echo(token)
    _remark(f"it will reach this node at {' or '.join(invitation.urls)}")
    if not _server_runs(config):
        _remark("this node does not listen yet: 'dropr up' starts it")
    if all(_is_loopback(url) for url in invitation.urls):
        _remark("that is this machine alone: listen elsewhere, or say --url, if the other node is on another one")


@contextlib.contextmanager
def _invitations(config: "NodeConfig", *, read_only: bool = False) -> Iterator["Invitations"]:
    """Those of the node: files, or in the store that machines share."""
    from dropr_core.api.runtime import Runtime
    from dropr_core.serving.invitations import Invitations
    from dropr_core.system.shared_document import FileDocuments

    if read_only and not (config.data / "node.id").exists():  # who only looks makes no store
        yield Invitations(FileDocuments(config.data))
        return
    with Runtime.open(config, read_only=read_only) as runtime:
        yield Invitations(runtime.documents)


def _remark(text: str) -> None:
    click.echo(one_line(text), err=True)


def _introductions(file: Path, config: "NodeConfig", urls: tuple[str, ...]) -> "list[Introduction]":
    """What to say about the addresses of this node. Stops if there is none at which it can be reached."""
    import logging

    from dropr_core.delivery.transports import Transports
    from dropr_core.errors import DroprError
    from dropr_core.plugin.host import make_context
    from dropr_core.plugin.observers import Observers
    from dropr_core.system.clock import SystemClock

    if not config.listen:
        raise Stop(
            Exit.CONFIG,
            f"{file}: node {config.node} has no `listen:`, so nobody can join it; add one such as "
            f"[http://0.0.0.0:8420], or invite from the other machine and join from here",
        )
    context = make_context(config, SystemClock(), logging.getLogger("dropr"), Observers())
    transports = Transports(config.transports, context, config.where)
    found, problems = [], []
    try:
        for url in urls or [reached for listened in _listened(config) for reached in _reached(listened)]:
            try:
                introduction = transports.for_url(url).introduce(url)
                wrong = transports.for_url(url).check(introduction.url, listen=False)
                if wrong is None:
                    found.append(introduction)
                else:
                    problems.append(wrong)
            except (DroprError, ValueError) as error:
                problems.append(str(error))
    finally:
        transports.close()
    if not found:
        why = "\n".join(problems) or "no address of this machine is known; say --url"
        raise Stop(Exit.CONFIG, f"nobody could reach this node to join it:\n{why}")
    return found


def _listened(config: "NodeConfig") -> list[str]:
    """Where the server of this node listens: as it says itself, if it runs (a port of 0 is a real one then)."""
    from dropr_core.system.presence import living

    for report in living(config.data / "run", "server"):
        urls = report.get("urls")
        if isinstance(urls, list) and urls:
            return [str(url) for url in urls]
    return list(config.listen)


def _server_runs(config: "NodeConfig") -> bool:
    from dropr_core.system.presence import living

    return any(True for _ in living(config.data / "run", "server"))


def _reached(url: str) -> list[str]:
    """How others reach a URL on which this machine listens: a wild card stands for its addresses."""
    parts = urlsplit(url)
    host = parts.hostname or parts.netloc.rpartition(":")[0]
    if host not in WILDCARDS:
        return [url]
    port = f":{parts.port}" if parts.port is not None else ""
    families = frozenset({socket.AF_INET, socket.AF_INET6} if host == "::" else {socket.AF_INET})
    names = _own_addresses(families, named=parts.scheme == "https")
    return [parts._replace(netloc=f"{name}{port}").geturl() for name in names]


def _own_addresses(families: frozenset[int], *, named: bool) -> list[str]:
    """Addresses of this machine in its network, by the routes it would take; nothing is sent.

    ``families``: those that are listened on; ``named``: its name first.
    """
    found = []
    if named and "." in (name := socket.getfqdn()) and not name.startswith("localhost"):
        found.append(name)
    for family, somewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        if family not in families:
            continue
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((somewhere, 9))
                address = probe.getsockname()[0]
        except OSError:  # no such network here
            continue
        found.append(f"[{address}]" if family == socket.AF_INET6 else address)
    return found or ["127.0.0.1"]


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def _show(records: "list[Record]", as_json: bool) -> None:
    now = time.time()
    if as_json:
        rows = [{"name": one.name, "state": one.state(now), "expires": one.expires} for one in records]
        echo_json({"invitations": rows})
        return
    if not records:
        echo("no invitation is open; 'dropr invite NAME' makes one")
        return
    stamp = "%Y-%m-%d %H:%M:%S"
    echo_table(
        ["name", "state", "expires"],
        [[one.name, one.state(now), time.strftime(stamp, time.localtime(one.expires))] for one in records],
    )


@verb("join", keys="`node`, `config`, `peer`, `url`, `mode` (push: the peer calls this node; pull: this node fetches).")
@click.argument("token")
@click.option(
    "--url", "urls", multiple=True, metavar="URL", help="Where the peer reaches this node. Default: from `listen:`."
)
@click.option("--pull", is_flag=True, help="The peer cannot reach this node, though it listens: fetch from the peer.")
@click.option("--wait", type=DURATION, default="30s", show_default=True, help="How long to wait for the peer's server.")
@click.pass_context
def join_verb(
    ctx: click.Context, config_file: Path | None, as_json: bool, token: str, urls: tuple[str, ...], pull: bool,
    wait: float,
) -> None:  # fmt: skip
    """Become a peer of the node that printed TOKEN by `dropr invite`; `-` reads the token from standard input.

    Writes that peer into the configuration, which is made if there is none, and its key into a file beside it. The
    other side does the same. Safe to run again after whatever went wrong.
    """
    import logging
    import sys

    from dropr_core.angel.reloading import tell_to_reload
    from dropr_core.config.node import load
    from dropr_core.delivery.joining import Joining
    from dropr_core.errors import Refused, TransportError
    from dropr_core.protocol.invitation import from_token

    if urls and pull:
        raise click.UsageError("--url says where this node is reached, --pull that it cannot be; choose")
    start_log(ctx, "dropr", least=-1)
    invitation = from_token(sys.stdin.read() if token == "-" else token)  # noqa: S105
    file = config_file or Path(DEFAULT_FILE)
    told = () if pull else urls or _told(file)
    try:
        joined = _patiently(Joining(file, invitation, logging.getLogger("dropr")), told, wait)
    except Refused as refusal:
        raise Stop(Exit.UNAVAILABLE, _refused(refusal.code, refusal.reason, invitation.node)) from None
    except TransportError as error:
        text = (
            f"{invitation.node} does not answer: {error}\nits server must run ('dropr up' there); then run this again"
        )
        raise Stop(Exit.UNAVAILABLE, text) from None
    config = load(file)
    running = tell_to_reload(config.data)
    mode = "push" if joined.reached_at else "pull"
    if as_json:
        echo_json({"node": config.node, "config": str(file), "peer": joined.peer, "url": joined.url, "mode": mode})
        return
    if not joined.url:
        echo(f"{config.node} had joined {joined.peer} already")
        return
    echo(f"{config.node} and {joined.peer} are peers now; it stands in {file}" + (
        "" if joined.backup is None else f" (before: {joined.backup})"))  # fmt: skip
    echo(f"{joined.peer} calls this node at {joined.reached_at}" if joined.reached_at
         else f"{joined.peer} cannot call this node: it fetches what is there for it")  # fmt: skip
    if not running:
        where = "" if file == Path(DEFAULT_FILE) else f" -c {file}"
        echo(f"next: 'dropr up{where}' to run it, 'dropr send TEXT --to {joined.peer}{where}' for a first message")


def _patiently(joining: "Joining", told: tuple[str, ...], wait: float) -> "Joined":
    """Join; as long as certainly nobody got the request, try again for ``wait`` seconds."""
    from dropr_core.errors import Unreachable

    ends = time.monotonic() + wait
    while True:
        try:
            return joining.run(told)
        except Unreachable:
            if time.monotonic() >= ends:
                raise
            time.sleep(min(TRY_AGAIN, wait))


def _told(file: Path) -> tuple[str, ...]:
    """Where this node says that it can be reached."""
    if not file.exists():
        return ()
    config = load_config(file)
    if not config.listen:
        return ()
    reached = tuple(one.url for one in _introductions(file, config, ()))
    return tuple(url for url in reached if not url.startswith("https") or not _is_loopback(url))


def _refused(code: str, reason: str, node: str) -> str:
    if code in {"unknown_peer", "unsupported"}:
        return f"{node} does not know this invitation, or its dropr is too old for `dropr join`: {reason}"
    return f"{node} refused: {reason}"
