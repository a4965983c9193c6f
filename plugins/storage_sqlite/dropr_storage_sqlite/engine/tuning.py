"""What the user chose, as the connections need it."""

import attrs


@attrs.frozen
class Tuning:
    """The user's options as the connections need them."""

    flush: float = 0.02
    busy: float = 10.0
    cache: int = 16 * 1024 * 1024
    reserve: int = 4 * 1024 * 1024
