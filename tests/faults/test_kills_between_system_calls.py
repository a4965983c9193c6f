"""The storage of plain files when a process is killed between any two of its system calls, or in the middle of a write.

Another process has the store open all the time and goes on with it; after that it is opened anew, as after everybody
was killed. The scenes are those of the power cuts.
"""

import os
import shutil
import signal
from pathlib import Path

import pytest
from dropr_storage_fs.files import disk
from powercut import files_scenes as scenes

CALLS = ("pwrite", "fdatasync", "fsync", "ftruncate", "open", "rename", "replace", "unlink", "mkdir")
NAMES = ("appending", "settling", "accepting", "acknowledging", "turning", "cancelling", "multicasting", "mixing",
         "rolling", "straggling", "remembering", "ending")  # fmt: skip
COUNTING = {"appending", "settling", "rolling", "straggling", "turning", "multicasting"}
"""Scenes whose check knows everything that may be there; the test itself adds one message."""
STRIDE = 1 if os.environ.get("DROPR_DEEP") else 3


def die_at(number, *, torn):
    """Before that call of the operating system, or in the middle of it if it is a write, this process is killed."""
    count = 0

    def wrap(name, real):
        def call(*values, **more):
            nonlocal count
            count += 1
            if count == number:
                if torn and name == "pwrite":
                    real(values[0], bytes(values[1])[: len(values[1]) // 2], values[2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*values, **more)

        return call

    for name in CALLS:
        setattr(os, name, wrap(name, getattr(os, name)))


def act(name, directory, number, *, torn):
    """A child that acts the scene out until it is killed. (what it said, whether it was killed)"""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            if name in scenes.SMALL:
                scenes.shrink(name)
            say = os.write
            die_at(number, torn=torn)
            store = scenes.open_store(directory)
            scenes.SCENES[name]().act(store, lambda word: say(writing, word.encode() + b"\n"))
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode().splitlines()
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child met an error"
    return said, os.WIFSIGNALED(status)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("torn", [False, True], ids=["between", "within"])
def test_a_kill_at_any_system_call_breaks_no_promise(name, torn, scratch, monkeypatch):
    """Whoever has the store open, or opens it later, finds what was promised, whole calls only, and goes on."""
    scene = scenes.SCENES[name]()
    whole = scratch / "whole"
    whole.mkdir()
    store = scenes.open_store(whole)
    with monkeypatch.context() as patch:
        if name == "straggling":
            patch.setattr(scenes.log, "SEGMENT_SIZE", 1500)
        scene.prepare(store)
        store.close()
    number, killed = 0, True
    while killed:
        number += STRIDE if name in scenes.SMALL else 1
        place = scratch / str(number)
        shutil.copytree(whole, place)
        witness = scenes.open_store(place)
        try:
            said, killed = act(name, place, number, torn=torn)
            try:
                scene.check(witness, said)
                scenes.append(witness, 999)
            except Exception as error:
                raise AssertionError(f"{name}, killed at call {number} ({said}), seen by another: {error!r}") from error
        finally:
            witness.close()
        again = scenes.open_store(place)
        try:
            assert again.outbox.status(scenes.identity(999))
            if name not in COUNTING:
                scene.check(again, said)
        finally:
            again.close()
        shutil.rmtree(place)
    assert number > 5, "nothing was interrupted"


def test_flushes_go_through_one_place():
    """Nothing of this package flushes by itself: the tests that count and break flushes see them all."""
    for place in Path(disk.__file__).parent.parent.rglob("*.py"):
        if place.name != "disk.py":
            text = place.read_text(encoding="utf-8")
            assert not [word for word in ("os.fsync(", "os.fdatasync(", "os.write(") if word in text], place
