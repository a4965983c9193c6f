"""What this plugin does around forks; see `storage_kit.forking` for why. Owns the list of what SQLite has open."""

from collections.abc import Iterator

import apsw

from dropr_core.storage_kit.forking import Forks


def _open_files() -> Iterator[str]:
    return (connection.filename for connection in apsw.connections() if connection.filename)


FORKS = Forks(_open_files)
