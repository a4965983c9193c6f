"""The topics of the notifier: what a process of a node wakes another one for.

Owns their names, and that a name of a channel or peer never meets another topic. Must not know how a notification
travels (system/notifier.py).
"""

OUTBOX = "outbox"
"""Something to ship."""

RECEIPTS = "receipts"
"""Deliveries have ended: their receipts came home, or there is room again."""

CONTROL = "control"
"""A peer is to be retried, held or released."""


def inbox(channel: str) -> str:
    """Something to claim on a channel."""
    return f"inbox:{channel}"


def mail(peer: str) -> str:
    """Something to fetch for a peer that cannot be reached."""
    return f"mail:{peer}"


def outcomes(sender: str) -> str:
    """Something new for the receipts of a sender."""
    return f"outcomes:{sender}"


def outbox_table(name: str) -> str:
    """Something was, or will soon be, committed in a table of messages in the user's database."""
    return f"table:{name}"
