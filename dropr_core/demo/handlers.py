"""What the demo's worker calls: the handler of channel ``jobs``. Must not know who counts its results."""

import hashlib
from typing import Any

from dropr_core.contracts.handler import Work


def answer(body: bytes, number: int) -> dict[str, Any]:
    """What the worker makes of a job; the sender makes the same and compares the two."""
    return {"n": number, "sha256": hashlib.sha256(body).hexdigest()}


def on_job(work: Work) -> dict[str, Any]:
    """Handle one job: its digest travels home with the receipt."""
    return answer(work.body, int(work.message.headers["n"]))
