"""The joining side: a token becomes a peer in this node's file.

Owns the steps and what is kept between them, so that a kill after any of them is mended by doing it again: the nonce is
written down before it is told to anybody, the inviter answers the same nonce the same, and only then the peer stands in
the file. Must not know the command line.
"""

import contextlib
import json
import logging
import queue
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from dropr_core.config.docs import init_text
from dropr_core.config.editing import add_entry, read_config
from dropr_core.config.node import NodeConfig, parse
from dropr_core.config.peering import NewPeer, add_peer, check_writable, file_for, with_peer, write_beside
from dropr_core.contracts.context import Context
from dropr_core.contracts.transport import Introduction, Trust
from dropr_core.delivery.peer_client import PeerClient
from dropr_core.delivery.transports import Transports
from dropr_core.errors import ConfigError, DroprError, Refused, TransportError, Unanswered, UsageError
from dropr_core.plugin.host import make_context
from dropr_core.plugin.observers import Observers
from dropr_core.plugin.registry import transport_for
from dropr_core.protocol import messages as wire
from dropr_core.protocol.invitation import Invitation, join_key, new_nonce, pair_key
from dropr_core.system.clock import SystemClock
from dropr_core.system.files import create_text, replace_text

More = tuple[tuple[tuple[str, ...], str], ...]
"""As `NewPeer.more`."""

PATIENCE = 30.0
"""Seconds without a byte after which an address of the inviter is given up."""


@attrs.frozen
class Joined:
    """What was done."""

    peer: str
    url: str
    """Where the inviter answered."""
    reached_at: str
    """Where the inviter will reach this node; empty: this node fetches."""
    made: bool
    """Whether the configuration was made new."""
    backup: Path | None
    """The old configuration, if there was one."""


class Joining:
    """One token and one configuration file."""

    def __init__(self, file: Path, invitation: Invitation, log: logging.Logger) -> None:
        self._file, self._invitation, self._log = file, invitation, log
        self._directory = file.absolute().parent
        self._pending = self._directory / f".{file.name}.joining"

    def run(self, urls: tuple[str, ...]) -> Joined:
        """Join. ``urls``: where this node can be reached; nothing: nowhere.

        Raises UsageError and ConfigError (nothing was told to anybody), Refused (the inviter said no), TransportError
        (no answer), OSError. Whatever it was, it can be run again.
        """
        invitation = self._invitation
        made = not self._file.exists()
        old = "" if made else read_config(self._file)
        nonce = self._nonce(write=False)
        if self._stands_there(made, old, nonce):
            self._done()
            return Joined(invitation.node, "", "", made=False, backup=None)
        self._try_out(made, old)
        nonce = self._nonce(write=True)
        config = self._config(made, old)
        context = make_context(config, SystemClock(), self._log, Observers())
        transports = Transports(config.transports, context, config.where)
        try:
            url, more, answer = self._ask(config, context, transports, nonce, urls)
        except Refused as refusal:
            if refusal.signed and refusal.code in {"used", "expired", "taken"}:
                self._done()
            raise
        finally:
            transports.close()
        key = pair_key(join_key(invitation.secret), nonce)
        entry: dict[str, object] = {"url": url}
        if not answer.url and config.listen:
            entry["fetch"] = True
        peer = NewPeer(invitation.node, key, entry, more)
        if made:
            self._write_new(peer)
        else:
            add_peer(self._file, peer)
        self._done()
        return Joined(invitation.node, url, answer.url, made, None if made else Path(f"{self._file}.bak"))

    # ── before anybody is asked ──────────────────────────────────────────────────────────────────

    def _config(self, made: bool, old: str) -> NodeConfig:
        """The configuration as it is; of a node that has none yet, the one that it will get, without the peer."""
        text = f"node: {self._invitation.name}\n" if made else old
        config = parse(text, self._directory, str(self._file))
        if config.node != self._invitation.name:
            raise UsageError(
                f"this invitation is for '{self._invitation.name}', but {self._file} is the node '{config.node}': run "
                f"`dropr invite {config.node}` on {self._invitation.node}, or name another file with -c"
            )
        return config

    def _stands_there(self, made: bool, old: str, nonce: bytes) -> bool:
        """Whether a join of before ended but for its last step. Raises ConfigError if another peer has the name."""
        invitation = self._invitation
        peer = None if made else self._config(made, old).peers.get(invitation.node)
        if peer is None:
            return False
        if nonce and pair_key(join_key(invitation.secret), nonce).encode() in peer.keys:
            return True
        problem = (
            f"{self._file}: {invitation.node} is a peer already. To join anew, remove it there, and on "
            f"{invitation.node} the peer {invitation.name}"
        )
        raise ConfigError([problem])

    def _try_out(self, made: bool, old: str) -> None:
        """Raise ConfigError for what would go wrong only after the invitation was used up."""
        if made:
            self._directory.mkdir(parents=True, exist_ok=True)
            check_writable(self._file)
            return
        check_writable(self._file)
        entry = {"url": self._invitation.urls[0]}
        with_peer(old, self._file, NewPeer(self._invitation.node, "tried-out-only", entry))

    def _nonce(self, *, write: bool) -> bytes:
        """That of this join, begun before or now; empty if it was not begun and is not to be."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(self._pending.read_text(encoding="utf-8"))
            if bytes.fromhex(kept["invitation"]) == self._invitation.id:
                return bytes.fromhex(kept["nonce"])
        if not write:
            return b""
        nonce = new_nonce()
        document = {"invitation": self._invitation.id.hex(), "nonce": nonce.hex()}
        replace_text(self._pending, json.dumps(document), durable=True)
        return nonce

    # ── asking ───────────────────────────────────────────────────────────────────────────────────

    def _ask(
        self, config: NodeConfig, context: Context, transports: Transports, nonce: bytes, urls: tuple[str, ...]
    ) -> "tuple[str, More, wire.Joined]":
        """The first address of the inviter that answers, and what it says. Raises the last error if none does."""
        failed: DroprError | None = None
        certificates = self._invitation.certificates or ("",) * len(self._invitation.urls)
        for url, certificate in zip(self._invitation.urls, certificates, strict=False):
            try:
                transport = transports.for_url(url)
                if wrong := transport.check(url, listen=False):
                    raise UsageError(wrong)
                trust = transport.trust(Introduction(url, certificate))
                more: More = ()
                if trust is None:
                    return url, more, self._ask_at(config.node, transports, url, nonce, urls)
                trusting, more = self._believe(config, context, url, trust)
                try:
                    return url, more, self._ask_at(config.node, trusting, url, nonce, urls)
                finally:
                    trusting.close()
            except (TransportError, UsageError) as error:
                failed = error
        assert failed is not None
        raise failed

    def _ask_at(self, node: str, transports: Transports, url: str, nonce: bytes, urls: tuple[str, ...]) -> wire.Joined:
        answers: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        client = PeerClient(
            node, self._invitation.node, [join_key(self._invitation.secret)],
            lambda: transports.for_url(url).connect(url), answers.put, PATIENCE,
        )  # fmt: skip
        client.session = self._invitation.id
        said: list[wire.Joined | Exception] = []
        try:
            client.ask(wire.JOIN, wire.Join(nonce, list(urls)), wire.Joined, said.append)
            ends = time.monotonic() + 4 * PATIENCE
            while not said:
                try:
                    answers.get(timeout=max(0.0, ends - time.monotonic()))()
                except queue.Empty:
                    raise Unanswered(f"{url}: no answer; run this again, it goes on where it stopped") from None
        finally:
            client.close()
        answer = said[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _believe(self, config: NodeConfig, context: Context, url: str, trust: Trust) -> "tuple[Transports, More]":
        """Transports that believe a certificate, kept in a file; and what must stand in the configuration for it."""
        name = transport_for(urlsplit(url).scheme, tuple(config.transports))
        scheme = urlsplit(url).scheme
        for peer in config.peers.values():
            if peer.url and urlsplit(peer.url).scheme == scheme:
                raise UsageError(
                    f"{url} shows a certificate of its own, and peer '{peer.name}' relies on the system's authorities: "
                    f"put both into one file and name it under transports: {name}: {'.'.join(trust.option)}"
                )
        path = file_for(self._directory, self._invitation.node, "pem", trust.content)
        write_beside(path, trust.content)
        options = _with(config.transports.get(name, {}), trust.option, str(path))
        transports = Transports({**config.transports, name: options}, context, config.where)
        return transports, ((("transports", name, *trust.option), f"./{path.name}"),)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────

    def _write_new(self, peer: NewPeer) -> None:
        """A commented configuration with the peer in it; whoever made one meanwhile keeps it."""
        key_file = file_for(self._directory, peer.name, "key", peer.key)
        write_beside(key_file, peer.key)
        text = init_text(self._invitation.name, peer.name, str(peer.entry["url"]), f"${{file:{key_file.name}}}")
        for steps, value in peer.more:
            text = add_entry(text, str(self._file), steps, value)
        create_text(self._file, text)

    def _done(self) -> None:
        self._pending.unlink(missing_ok=True)


def _with(options: Mapping[str, Any], steps: tuple[str, ...], value: str) -> dict[str, Any]:
    """A copy of the options with ``value`` at ``steps``."""
    below = options.get(steps[0])
    inner = _with(below if isinstance(below, Mapping) else {}, steps[1:], value) if steps[1:] else value
    return {**options, steps[0]: inner}
