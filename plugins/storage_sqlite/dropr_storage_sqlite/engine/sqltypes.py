"""The type of a connection as jobs see it: rows are what the statement says, not a union of all.

Owns nothing else.
"""

from collections.abc import Iterable
from typing import Any, Protocol


class Connection(Protocol):
    """Runs statements within the transaction that it was given for."""

    def execute(self, statements: str, bindings: Any = ..., /) -> Any:
        """Run one statement; returns a cursor."""
        ...

    def data_version(self) -> int:
        """Changes with every commit to the file, by this connection or another, that this one sees."""
        ...

    def total_changes(self) -> int:
        """How many rows this connection ever changed, those that were rolled back included."""
        ...

    def executemany(self, statements: str, sequenceofbindings: Iterable[Any], /) -> Any:
        """Run one statement for each of many bindings."""
        ...
