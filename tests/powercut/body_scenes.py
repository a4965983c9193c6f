"""Large bodies while the power fails: two scenes, and what must be left of each.

Runs as a program of its own under the power-cut file system (``python -m powercut.body_scenes SCENE DIRECTORY
WORDS [off]``), and is imported by the test that looks at the disks.
"""

import io
import os
import random
import sys
from pathlib import Path

from dropr_core.bodies.store import BodyFiles
from dropr_core.errors import BadBody, StoreCorrupt
from dropr_core.model.chunk_digest import LEAF, digest_of, leaves_of
from dropr_core.model.envelope import Reference
from dropr_core.model.names import MessageId

SIZES = (5_000, 600_000, 300_000)
PIECE = LEAF


def body(number):
    """The bytes of a body."""
    return random.Random(number).randbytes(SIZES[number])


def identity(number):
    """The id of its message."""
    return MessageId(number.to_bytes(16, "big"))


def reference(number):
    """What its envelope says of it."""
    return Reference(SIZES[number], digest_of(leaves_of(body(number))))


def sending(bodies, say):
    """Each body is promised when `write` returns: its message may be stored now."""
    for number in range(len(SIZES)):
        written = bodies.write(identity(number), io.BytesIO(body(number)))
        say(str(number))
        written.release()


def check_sending(bodies, said):
    """Every body that was promised is there, byte for byte; the sweep opens what is left."""
    for number in map(int, said):
        with bodies.open_sent(identity(number), reference(number)) as file:
            assert file.read() == body(number)
    bodies.sweep(lambda _: True, lambda _: True, 0.0)


def arriving(bodies, say):
    """A body is promised when the answer to a piece says that all of it is there."""
    arrivals = bodies.arrivals()
    for number in range(len(SIZES)):
        here = arrivals.of("shop", identity(number), reference(number))
        for offset in range(0, SIZES[number], PIECE):
            if here.write(offset, body(number)[offset : offset + PIECE]) == SIZES[number]:
                say(str(number))
    arrivals.close()


def check_arriving(bodies, said):
    """What was promised is there; of everything else the rest is asked for, and it becomes whole."""
    arrivals = bodies.arrivals()
    for number in range(len(SIZES)):
        if str(number) in said:
            assert bodies.has("shop", identity(number), reference(number))
        here = arrivals.of("shop", identity(number), reference(number))
        for _ in range(2):  # what a power cut left may be anything: then it is begun anew
            have = here.have()
            try:
                if have < SIZES[number]:
                    here.write(have, body(number)[have:])
            except BadBody:
                continue
            break
        with bodies.open_received("shop", identity(number), reference(number)) as file:
            assert file.read() == body(number)
    arrivals.close()


SCENES = {"sending": (sending, check_sending), "arriving": (arriving, check_arriving)}
BROKEN = (AssertionError, StoreCorrupt)


def main():
    """Act a scene out, writing down what was promised."""
    name, directory, words, *switches = sys.argv[1:]
    if "off" in switches:
        os.fsync = os.fdatasync = lambda _fd: None
    with Path(words).open("ab", buffering=0) as file:
        SCENES[name][0](BodyFiles(Path(directory) / "bodies", 0), lambda word: file.write(word.encode() + b"\n"))


if __name__ == "__main__":
    main()
