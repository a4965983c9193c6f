"""The inviting side of a join: who holds a token becomes a peer.

Owns the order of what happens then, each step of which can be done again: the invitation is used up for this one
asker, the key is written, the peer stands in the node's file, running processes are told. Must not know transports.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from dropr_core.angel.reloading import tell_to_reload
from dropr_core.config.editing import read_config
from dropr_core.config.node import NodeConfig, load
from dropr_core.config.peering import NewPeer, add_peer, check_writable, config_file, with_peer
from dropr_core.config.units import format_duration
from dropr_core.errors import ConfigError, Refused, StoreError
from dropr_core.protocol import messages as wire
from dropr_core.protocol.invitation import pair_key
from dropr_core.serving.invitations import Invitations, Record
from dropr_core.system.shared_document import Documents, FileDocuments


class JoinDesk:
    """Implements `protocol.access.Joins` for a node whose configuration is a file."""

    def __init__(
        self,
        config: NodeConfig,
        usable: Callable[[str], bool],
        applied: Callable[[NodeConfig], None],
        log: logging.Logger,
        documents: Documents | None = None,
    ) -> None:
        """``usable``: whether a transport of this node can reach a URL; ``applied``: told the new configuration;
        ``documents``: where the invitations stand, instead of the data directory.
        """
        self._file = config_file(config)
        self._node, self._data = config.node, config.data
        self._usable, self._applied, self._log = usable, applied, log
        self._invitations = Invitations(documents or FileDocuments(config.data))

    def key(self, invitation: bytes, name: str) -> bytes | None:
        """See `Joins`."""
        record = self._invitations.find(invitation) if len(invitation) == 16 else None
        return record.key if record is not None and record.name == name else None

    def join(self, invitation: bytes, name: str, request: wire.Join) -> wire.Joined:
        """See `Joins`."""
        if self._file is None:
            raise Refused(
                "bad_invitation", f"{self._node} has no configuration file into which a peer could be written"
            )
        try:
            with self._invitations.locked():
                record = self._invitations.find(invitation)
                if record is None or record.name != name:
                    raise Refused("bad_invitation", "this invitation was revoked; ask for a new one")
                return self._take(self._file, record, request)
        except ConfigError as error:
            self._log.error("%s may join, but cannot be written down:\n%s", name, error)
            text = f"{self._node} cannot write {name} into its configuration; its log says why; then run this again"
            raise Refused("not_written", text) from None
        except (OSError, StoreError) as error:
            self._log.error("%s may join, but cannot be written down: %s", name, error)
            why = error.strerror if isinstance(error, OSError) else error
            text = f"{self._node} cannot write {name} into its configuration ({why}); mend it and try again"
            raise Refused("not_written", text) from None

    def _take(self, file: Path, record: Record, request: wire.Join) -> wire.Joined:
        now = time.time()
        if record.nonce and record.nonce != request.nonce:
            raise Refused("used", f"this invitation was used already; `dropr invite {record.name}` on {self._node} "
                          "makes another one")  # fmt: skip
        if not record.nonce and now >= record.expires:
            ago = format_duration(max(1, round(now - record.expires)))
            raise Refused("expired", f"this invitation expired {ago} ago; `dropr invite {record.name}` on "
                          f"{self._node} makes another one")  # fmt: skip
        config = load(file)
        key = pair_key(record.key, request.nonce)
        there = config.peers.get(record.name)
        if there is not None and key.encode() not in there.keys:
            raise Refused(
                "taken", f"{self._node} has another peer called {record.name}; it must be removed there first"
            )
        url = next((url for url in request.urls if self._usable(url)), "")
        if there is None:
            entry: dict[str, object] = {"url": url} if url else {"mode": "pull"}
            if record.may_write is not None:
                entry["may_write"] = list(record.may_write)
            peer = NewPeer(record.name, key, entry)
            with_peer(read_config(file), file, peer)  # what cannot be written uses nothing up
            check_writable(file)
            if not record.nonce:
                self._invitations.keep(attrs.evolve(record, nonce=request.nonce))
            config = add_peer(file, peer)
            self._log.info("%s joined: it stands in %s now (before: %s.bak)", record.name, file, file.name)
        else:
            url = there.url or ""
        self._applied(config)
        tell_to_reload(self._data)
        return wire.Joined(url)


__all__ = ["JoinDesk"]
