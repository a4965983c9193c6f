"""What a person may do to messages and peers of a node, from the command line and from the page: one way for both.

Owns that whoever waits for it is woken. Whether a change is possible is for the stores to say; each function says what
came of it. Must not know who asked.
"""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dropr_core.errors import StoreError, UnknownPeer
from dropr_core.model import topics
from dropr_core.system.loading import unforked

if TYPE_CHECKING:
    from dropr_core.api.runtime import Runtime
    from dropr_core.contracts.storage import Selection
    from dropr_core.model.names import MessageId


# ── messages ─────────────────────────────────────────────────────────────────────────────────────


def cancel(node: "Runtime", message_id: "MessageId", peers: Sequence[str] = ()) -> tuple[int, int]:
    """Take back a message that was not shipped yet: (deliveries cancelled, too late for). ``peers``: only to these."""
    for peer in peers:
        known_peer(node, peer)
    done = node.outbox.cancel(message_id, tuple(peers) or None)
    node.notifier.notify(topics.RECEIPTS)  # somebody may wait for its end
    return done


def bury(node: "Runtime", message_id: "MessageId", reason: str) -> bool:
    """Put a message that waits in the inbox on the dead-letter list; whether it did wait."""
    with unforked:
        from dropr_core.model.limits import clip

    buried = node.inbox.bury(message_id, clip(reason))
    info = node.inbox.status(message_id)
    if buried and info is not None:
        node.notifier.notify(topics.outcomes(info.sender))  # its sender may wait for the receipt
    return buried


def kick(node: "Runtime", selection: "Selection") -> int:
    """Make buried and delayed messages of the inbox ready now, with fresh attempts. Returns how many."""
    count = node.inbox.kick(selection)
    for channel in [selection.channel] if selection.channel else list(node.inbox.counts()):
        node.notifier.notify(topics.inbox(channel))
    return count


def redrive(node: "Runtime", selection: "Selection") -> int:
    """Send deliveries that ended as dead, failed or expired again, at the end of their lanes. Returns how many."""
    count = node.outbox.redrive(selection)
    node.notifier.notify(topics.OUTBOX)
    for name, peer in node.config.peers.items():
        if peer.mode == "pull":
            node.notifier.notify(topics.mail(name))
    return count


# ── peers ────────────────────────────────────────────────────────────────────────────────────────


def known_peer(node: "Runtime", peer: str) -> str:
    """``peer``, if it is configured or the outbox still has something for it; else UnknownPeer."""
    with unforked:
        from dropr_core.config.options import suggest

    names = {*node.config.peers, *node.outbox.peers()}
    if peer not in names:
        raise UnknownPeer(f"no peer is called {peer!r}{suggest(peer, names)}")
    return peer


def hold(node: "Runtime", peer: str, reason: str) -> str:
    """Ship nothing more to a peer until release. The reason as it is kept."""
    with unforked:
        from dropr_core.model.limits import clip

    reason = clip(reason)
    node.outbox.hold(known_peer(node, peer), reason)
    node.notifier.notify(topics.CONTROL)
    return reason


def release(node: "Runtime", peer: str) -> bool:
    """Ship to a peer again; whether it was held."""
    before = node.outbox.peers().get(known_peer(node, peer))
    node.outbox.release(peer)
    with contextlib.suppress(StoreError):  # it is released all the same, and tried when its rest is over
        node.retry_now(peer)
    return before is not None and before.held


def retry(node: "Runtime", peer: str | None) -> None:
    """Try a peer (None: every peer) again now, instead of when its rest is over."""
    node.retry_now(None if peer is None else known_peer(node, peer))
