"""Acts a scene out under the power-cut file system and hands over every disk that a cut on the way leaves.

Owns the depth of the campaign and the processes of a run. Must not know what a scene does.
"""

import os
import shutil
import subprocess
import sys
from typing import NamedTuple

from powercut.disk.client import PATIENCE, PowerCut, environment
from powercut.disk.exploring import survey

DEEP = bool(os.environ.get("DROPR_DEEP"))
"""Whether this is the long campaign."""

POLICIES = ("lose", "meta-first", "data-first", "prefix", "random", "random") if DEEP else ("lose", "prefix", "random")


def run(module, *arguments):
    """Run a module of this package as a program of its own; its exit code."""
    command = [sys.executable, "-m", f"powercut.{module}", *map(str, arguments)]
    return subprocess.run(command, env=environment(), check=False, timeout=PATIENCE).returncode


class Run(NamedTuple):
    """Where a scene is acted."""

    backing: object
    """The disk before the scene."""
    images: object
    words: object
    """What was promised, a line each."""


def stage(directory):
    """A place to act in."""
    place = Run(directory / "disk", directory / "images", directory / "words")
    place.backing.mkdir()
    place.images.mkdir()
    place.words.touch()
    return place


def act(place, module, name, *switches):
    """Act the scene ``name`` of a module out, and look at every disk: yields (disk, words said by then, about).

    Each disk is removed when the next is asked for.
    """
    with PowerCut(place.backing) as disk:
        disk.explore(place.images, POLICIES, place.words)
        assert run(module, name, disk.path, place.words, *switches) == 0
        assert disk.stats()["complete"]
    said = place.words.read_bytes()
    for image, about in survey(place.images):
        yield image, said[: about.acks].decode().splitlines(), about
        shutil.rmtree(image)
