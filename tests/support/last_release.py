"""The last release, beside this tree: its wheels unpacked, and run by the same interpreter.

Owns where they are (`tests/last_release/`, made by `make release-data`) and what a process needs to be of that version.
Must not know what is tested.
"""

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from support.nodes import Place

ARCHIVES = Path(__file__).resolve().parents[1] / "last_release"


def archive() -> Path:
    """The one archive that is there."""
    (found,) = ARCHIVES.glob("dropr-*.tar.xz")
    return found


VERSION = archive().name.removeprefix("dropr-").removesuffix(".tar.xz")


class LastRelease:
    """The release, unpacked into a directory."""

    version = VERSION

    def __init__(self, directory: Path) -> None:
        """Unpacks it into ``directory``."""
        self.directory = directory
        with tarfile.open(archive()) as opened:
            for name in opened.getnames():
                if name.endswith(".whl"):
                    data = opened.extractfile(name)
                    assert data is not None
                    with zipfile.ZipFile(BytesIO(data.read())) as wheel:
                        wheel.extractall(directory)

    @property
    def env(self) -> Mapping[str, str]:
        """For a process that shall be of that version: its directory before the tree's, and not where it is started."""
        return {"PYTHONPATH": str(self.directory), "PYTHONSAFEPATH": "1"}

    def dress(self, place: Place) -> None:
        """Let a node's processes be of that version from now on."""
        here = place.road.env["PYTHONPATH"]
        place.env = {**self.env, "PYTHONPATH": f"{self.directory}{os.pathsep}{here}"}

    def python(self, *words: str | Path, cwd: Path, fails: int = 0) -> str:
        """Run Python of that version; what it says. It must end with the exit code ``fails``."""
        done = subprocess.run(
            [sys.executable, *map(str, words)], check=False, cwd=cwd, env={**os.environ, **self.env},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == fails, f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def dropr(self, *words: str | Path, cwd: Path, fails: int = 0) -> str:
        """Run a verb of that version; what it says."""
        return self.python("-m", "dropr_core", *words, cwd=cwd, fails=fails)
