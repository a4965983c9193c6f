"""The wheels of the last release as test data: what tests of an upgrade run against this tree.

    python tools/release_data.py v0.1.0     # a tag or a commit of this repository

Writes `tests/last_release/dropr-VERSION.tar.xz` in the place of the one that was there. In it are the wheels of core,
storages and transports, as `make dist` builds them from that commit, but not compressed each by itself: together they
take a third less. `tests/support/last_release.py` unpacks them. Needs hatchling and git, and no network.
"""

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "tests" / "last_release"
PROJECTS = (".", "plugins/storage_fs", "plugins/storage_sqlite", "plugins/transport_curl", "plugins/transport_zmq")
"""Of later releases also what else carries or keeps messages."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


def git(*words: str) -> bytes:
    """What git says. Raises CalledProcessError."""
    return subprocess.run(["git", "-C", str(ROOT), *words], check=True, stdout=subprocess.PIPE).stdout


def build(commit: str, directory: Path) -> list[Path]:
    """The wheels of a commit; the same bytes each time, but for what another hatchling does differently."""
    source, wheels = directory / "source", directory / "wheels"
    with tarfile.open(fileobj=io.BytesIO(git("archive", commit))) as archive:
        archive.extractall(source, filter="data")
    moment = git("show", "--no-patch", "--format=%ct", f"{commit}^{{commit}}").decode().strip()
    for project in PROJECTS:
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(wheels)],
            cwd=source / project, env={**os.environ, "SOURCE_DATE_EPOCH": moment}, check=True,
        )  # fmt: skip
    return sorted(wheels.glob("*.whl"))


def stored(wheel: Path) -> bytes:
    """The same wheel without compression."""
    out = io.BytesIO()
    with zipfile.ZipFile(wheel) as before, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as after:
        for name in before.namelist():
            after.writestr(zipfile.ZipInfo(name, _EPOCH), before.read(name))
    return out.getvalue()


def pack(commit: str) -> Path:
    """Write the archive of a commit, and remove the one before."""
    full = git("rev-parse", f"{commit}^{{commit}}").strip() + b"\n"
    with tempfile.TemporaryDirectory() as temporary:
        wheels = build(commit, Path(temporary))
        version = next(wheel.name.split("-")[1] for wheel in wheels if wheel.name.startswith("dropr_core-"))
        members = {"COMMIT": full} | {wheel.name: stored(wheel) for wheel in wheels}
    for old in PLACE.glob("dropr-*.tar.xz"):
        old.unlink()
    target = PLACE / f"dropr-{version}.tar.xz"
    with tarfile.open(target, "w:xz", preset=9) as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return target


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    made = pack(sys.argv[1])
    sys.stdout.write(f"{made.relative_to(ROOT)}: {made.stat().st_size:,} bytes\n")
