"""How much may wait: of a half, for a peer, in a channel.

Owns the comparison with the limits of the context and the words of its error. Must not know how waiting is counted.
"""

from collections.abc import Callable, Mapping
from typing import Literal

from dropr_core.contracts.context import Context
from dropr_core.errors import QueueFull

Amount = tuple[float, float]
"""Messages, bytes."""
Kept = Callable[[Literal["all", "peer", "channel"], str], Amount]
"""What is kept: of the half (no name), for a peer, in a channel."""


def limited(context: Context) -> bool:
    """Whether there is any limit on what may be sent."""
    return bool(_half(context) != (None, None) or context.peer_limits or context.channel_limits)


def check_outbox(context: Context, more: Mapping[tuple[str, str], Amount], kept: Kept) -> None:
    """Raise QueueFull if ``more``, by (peer, channel), would be over a limit."""
    peers, channels = _sums(more, 0), _sums(more, 1)
    _check_half(context, "outbox", list(more.values()), kept)
    for name, amount in peers.items():
        if name in context.peer_limits:
            check_limit(("peer", name), f"peer {name}", context.peer_limits[name], kept("peer", name), amount)
    _check_channels(context, channels, kept)


def check_inbox(context: Context, more: Mapping[str, Amount], kept: Kept) -> None:
    """Raise QueueFull if ``more``, by channel, would be over a limit."""
    _check_half(context, "inbox", list(more.values()), kept)
    _check_channels(context, more, kept)


def check_limit(
    queue: tuple[str, str], what: str, limit: tuple[int | None, int | None], kept: Amount, more: Amount
) -> None:
    """Raise QueueFull if ``more`` (messages, bytes) on top of ``kept`` would be over ``limit``."""
    over: QueueFull | None = None
    for unit, most, have, new in zip(("messages", "bytes"), limit, kept, more, strict=True):
        if most is not None and have + new > most and (over is None or new > most):
            over = QueueFull(
                f"{what}: {int(have)} {unit} are waiting, {int(new)} more would be over the limit of {most}; "
                + ("raise the limit" if new > most else "try again when some were delivered, or raise the limit"),
                queue=queue, never=new > most,
            )  # fmt: skip
    if over is not None:
        raise over


def _half(context: Context) -> tuple[int | None, int | None]:
    return context.max_messages, context.max_bytes


def _check_half(context: Context, half: str, more: list[Amount], kept: Kept) -> None:
    if more and _half(context) != (None, None):
        total = (sum(amount[0] for amount in more), sum(amount[1] for amount in more))
        check_limit(("all", ""), f"the {half} of {context.node}", _half(context), kept("all", ""), total)


def _check_channels(context: Context, more: Mapping[str, Amount], kept: Kept) -> None:
    for name, amount in more.items():
        if name in context.channel_limits:
            check_limit(
                ("channel", name), f"channel {name}", context.channel_limits[name], kept("channel", name), amount
            )


def _sums(more: Mapping[tuple[str, str], Amount], field: int) -> dict[str, Amount]:
    out: dict[str, Amount] = {}
    for names, amount in more.items():
        before = out.get(names[field], (0, 0))
        out[names[field]] = (before[0] + amount[0], before[1] + amount[1])
    return out
