"""What all servers of a node know of conversations with its peers: the secret, and who has begun to fetch.

Owns the documents ``conversations.json`` and ``fetching.json`` (docs/formats/conversations.md). Must not know what a
token looks like.
"""

import os
from typing import Any

from dropr_core.protocol.conversations import Conversation, NodeSecret
from dropr_core.system.clock import Clock
from dropr_core.system.shared_document import Documents, Form

KEPT = "conversations.json"
FETCHING = "fetching.json"
VERSION = 1
_SIZE = 32
_ADVICE = "remove it: peers greet again, and nothing is lost"


def node_secret(documents: Documents, clock: Clock) -> NodeSecret:
    """That of a node; made when it is first needed."""
    document = documents.document(KEPT, Form(_decode_secret, _encode_secret, list[bytes], _ADVICE))

    def read() -> bytes:
        kept = document.look()
        if not kept:
            with document.changing() as kept:
                if not kept:
                    kept.append(os.urandom(_SIZE))
        return kept[0]

    return NodeSecret(read, lambda: clock.now() + documents.shift())


class FetchingPeers:
    """Implements `protocol.conversations.Begun`."""

    def __init__(self, documents: Documents) -> None:
        self._document = documents.document(
            FETCHING, Form(_decode_fetching, _encode_fetching, dict[str, Conversation], _ADVICE)
        )

    def newest(self, peer: str) -> Conversation | None:
        """See `Begun`."""
        return self._document.look(now=True).get(peer)

    def note(self, peer: str, conversation: Conversation) -> None:
        """See `Begun`."""
        with self._document.changing() as kept:
            known = kept.get(peer)
            if known is None or known.ends < conversation.ends:
                kept[peer] = conversation


def _decode_secret(document: Any) -> list[bytes]:
    secret = bytes.fromhex(_checked(document)["secret"])
    if len(secret) != _SIZE:
        raise ValueError(f"a secret of {len(secret)} bytes")
    return [secret]


def _encode_secret(kept: list[bytes]) -> object:
    return {"version": VERSION, "secret": kept[0].hex()}


def _decode_fetching(document: Any) -> dict[str, Conversation]:
    peers = _checked(document)["peers"]
    return {str(name): Conversation(int(ends), bytes.fromhex(identity)) for name, (ends, identity) in peers.items()}


def _encode_fetching(kept: dict[str, Conversation]) -> object:
    return {"version": VERSION, "peers": {name: [one.ends, one.identity.hex()] for name, one in kept.items()}}


def _checked(document: Any) -> Any:
    if document["version"] != VERSION:
        raise ValueError(f"version {document['version']!r}")
    return document


__all__ = ["FetchingPeers", "node_secret"]
