"""Every limit that has two sides: what a sender keeps to, and what a receiver refuses.

Owns the numbers, once for both sides, and `clip`, which keeps texts for people within theirs. Whoever makes something
cuts it, counts it or refuses it here first, so that nothing is stored or sent that the other side has to refuse.
Must not know who keeps to a limit.

Bytes are counted as they travel (UTF-8), durations in seconds.
"""

# ── one message ──────────────────────────────────────────────────────────────────────────────────

MAX_CHANNEL = 200
MAX_NAME = 64
MAX_KEY = 200
MAX_CONTENT_TYPE = 255
MAX_HEADERS = 64 * 1024
MAX_ENVELOPE_HEADER = 256 * 1024
MAX_INLINE = 4 * 1024 * 1024
MAX_HOPS = 16
MAX_SECONDS = 1e10

# ── one receipt ──────────────────────────────────────────────────────────────────────────────────

MAX_RESULT = 64 * 1024
MAX_REASON = 4096
MAX_REJECTION = 300

# ── one request ──────────────────────────────────────────────────────────────────────────────────

MAX_FRAME_HEADER = 4096
MAX_LANES = 2000
MAX_BATCH_COUNT = 50_000
MAX_BATCH_BYTES = 32 * 1024 * 1024
MAX_RECEIPTS = 1000
RECEIPTS_BYTES = 1024 * 1024
PIECE = 4 * 1024 * 1024
MAX_WAIT = 55.0
MAX_SEQUENCE = 2**63 - 1

FRAMING = 2 * 1024 * 1024
"""Bytes of a request beside the envelopes that it carries: channels of `MAX_LANES` lanes, notes on `MAX_BATCH_COUNT`
envelopes. Also beside a page of receipts, whose rows are counted with `RECEIPTS_BYTES`."""

MAX_ENVELOPE = MAX_INLINE + MAX_ENVELOPE_HEADER + 64
"""Bytes of the largest envelope that a node makes."""

MAX_ANSWER = MAX_BATCH_BYTES + MAX_ENVELOPE + FRAMING


def max_request(batch_bytes: int) -> int:
    """Bytes of the largest request body that a node takes whose batches are of ``batch_bytes``.

    The sender computes it from what the receiver announces; no other option of either node has a part in it.
    """
    return max(batch_bytes, MAX_ENVELOPE, PIECE) + FRAMING


def clip(text: object, most: int = MAX_REASON) -> str:
    """A text for people, made fit to be stored and sent: valid UTF-8 of at most ``most`` bytes, cut at its end."""
    if not isinstance(text, str):
        text = str(text)
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= most:
        return text if data.isascii() else data.decode()
    return data[: most - 3].decode("utf-8", "ignore") + "…"
