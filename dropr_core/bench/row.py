"""One line of what a bench of this machine says.

Owns its shape. Must not know how anything is measured.
"""

from collections.abc import Callable

import attrs

from dropr_core.bench.samples import Samples

Say = Callable[[str], None]
"""Told what is being measured now."""


@attrs.frozen
class Row:
    """What was measured several times, and the raw limit of the same rounds beside it."""

    part: str
    """``disk``, ``nodes`` or ``line``."""
    what: str
    unit: str
    samples: Samples = Samples(())
    limit: Samples | None = None
    limit_label: str = ""
    problem: str = ""
    """Why there are no samples."""
