"""Runs the blocks of a page for users, as a reader would who types them in one after the other.

Owns what a block is and how it runs. Must not know which pages there are, or what dropr is.

Blocks are fenced ones, and indented ones for the shell. What a page says about a block stands before it:

    **Terminal 2 …**             from here on another shell, in the directory in which the one before was
    `shop.yaml`:                 the block is the content of that file
    <!-- not run: reason -->     the block cannot run here
    <!-- fails: 124 -->          the block ends with this exit code
    <!-- endless -->             the block runs until the page ends

Blocks of ``sh`` run in their terminal, blocks of ``python`` as a program of their own in the directory of the
terminal. A ``text`` block is what the block before it printed (``…`` stands for anything). A shell whose
block ends with ``dropr up`` in the foreground is left alone with it. Ports are replaced by free ones.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs
from support.nodes import free_port

PATIENCE = 90.0
"""Seconds after which a block that has not ended fails the page."""

RUNNABLE = frozenset({"sh", "python"})
_PORT = re.compile(r"(?<![\w.])(127\.0\.0\.1(?=[:\"])|localhost(?=[:\"])|--port)(:|\", | )(\d{4,5})\b")
_STAYS = re.compile(r"^dropr up\b[^&\n]*\Z", re.MULTILINE)
_NOTE = re.compile(r"<!-- (not run|fails|endless)(?:: (.*?))? -->")
_FILE = re.compile(r"^`([\w./-]+)`[^`\n]*:$")


@attrs.frozen
class Block:
    """One block of a page."""

    line: int
    kind: str
    """What stands behind the fence; ``sh`` for indented blocks."""
    text: str
    terminal: int = 1
    file: str | None = None
    notes: dict[str, str] = attrs.field(factory=dict)

    @property
    def stays(self):
        """Whether it ends with a program in the foreground that does not end."""
        return bool(_STAYS.search(self.text.strip()))


def blocks_of(page):
    """The blocks of a page, in order."""
    lines = page.splitlines()
    out, notes, file, terminal, index = [], {}, None, 1, 0
    while index < len(lines):
        line, start = lines[index], index
        if fence := re.match(r"^```(\w*)", line):
            index += 1
            while not lines[index].startswith("```"):
                index += 1
            text = "\n".join(lines[start + 1 : index]) + "\n"
            out.append(Block(start + 1, fence[1], text, terminal, file, notes))
            notes, file = {}, None
        elif line.startswith("    ") and not (start and lines[start - 1].strip()):
            while index < len(lines) and (lines[index].startswith("    ") or not lines[index]):
                index += 1
            index -= 1
            text = "".join(f"{one[4:]}\n" for one in lines[start : index + 1])
            out.append(Block(start + 1, "sh", text, terminal, file, notes))
            notes, file = {}, None
        elif note := _NOTE.search(line):
            notes = {**notes, note[1]: note[2] or ""}
        elif named := _FILE.match(line):
            file = named[1]
        elif line.strip():
            notes, file = {}, None
            if shell := re.match(r"\*\*Terminal (\d)", line):
                terminal = int(shell[1])
        index += 1
    return out


class Reader:
    """Somebody who does what a page says, in an empty directory."""

    def __init__(self, directory, *, path):
        """``path``: the directory of ``dropr`` and ``python``."""
        self.directory = directory
        self.environment = {
            "PATH": f"{path}:{os.environ['PATH']}", "HOME": str(directory), "LANG": "C.UTF-8", "COLUMNS": "100",
            "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        self._shells: dict[int, _Shell] = {}
        self._latest: _Shell | None = None
        self._endless: list[_Program] = []
        self._ports: dict[str, int] = {}
        self._said = ""
        self._count = 0

    def do(self, block):
        """Do what a block says. Raises AssertionError with what was seen if it does not work as written."""
        self._count += 1
        text = _PORT.sub(self._free, block.text)
        if "not run" in block.notes or (not block.kind and "─" in block.text):  # the latter is a drawing
            return
        if block.file:
            path = self._here(block) / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif block.kind == "text":
            self._expect(block, text)
        elif block.kind == "sh":
            self._said = self._shell(block).run(text, block, int(block.notes.get("fails", "0")))
        elif block.kind == "python":
            self._python(block, text)
        else:
            raise AssertionError(
                f"line {block.line}: nobody knows what to do with a block of {block.kind or 'no kind'}"
            )

    def take_over(self, directory):
        """Free ports for those in the files that are there already; the blocks of the page get the same."""
        for path in directory.rglob("*"):
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                path.write_text(_PORT.sub(self._free, text), encoding="utf-8")

    def _free(self, match):
        port = self._ports.get(match[3])
        if port is None:
            port = self._ports[match[3]] = free_port()
        return f"{match[1]}{match[2]}{port}"

    def _shell(self, block):
        shell = self._shells.get(block.terminal)
        if shell is None:
            shell = self._shells[block.terminal] = _Shell(self._where(), self.directory, self.environment)
        self._latest = shell
        return shell

    def _where(self):
        return self.directory if self._latest is None else self._latest.directory

    def _here(self, block):
        shell = self._shells.get(block.terminal)
        return self._where() if shell is None else shell.directory

    def _python(self, block, text):
        path = self._here(block) / f"block_{self._count}.py"
        path.write_text(text, encoding="utf-8")
        program = _Program(path, self.environment)
        if "endless" in block.notes:
            self._endless.append(program)
            self._said = program
        else:
            self._said = program.end(block, int(block.notes.get("fails", "0")))

    def _expect(self, block, text):
        """Each line was printed by the block before, in this order."""
        pieces = [piece for line in text.strip().splitlines() for piece in line.strip().split("…")]
        until = time.monotonic() + PATIENCE
        while not _holds(said := self._said if isinstance(self._said, str) else self._said.said, pieces):
            assert not isinstance(self._said, str), f"line {block.line}: expected\n{text}\nbut saw\n{said}"
            assert time.monotonic() < until, f"line {block.line}: waited in vain for\n{text}\nand saw\n{said}"
            time.sleep(0.05)

    def close(self):
        """End everything; raises AssertionError if something that should have stayed has ended."""
        gone = [shell.said for shell in self._shells.values() if shell.staying and shell.ended]
        gone += [program.said for program in self._endless if program.ended]
        for one in [*self._endless, *self._shells.values()]:
            one.stop()
        assert not gone, "ended before its time:\n" + "\n".join(gone)


def _holds(said, pieces):
    """Whether all pieces stand in a text, one after the other. A regular expression of a page's length would try
    every way to find the first ones again before it says no, for minutes.
    """
    at = 0
    for piece in pieces:
        found = said.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return True


class _Group:
    """Processes that are stopped together."""

    def __init__(self, arguments, directory, log, environment):
        self._log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                arguments, cwd=directory, env=environment, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    @property
    def said(self):
        """All that was printed so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def ended(self):
        """Whether it has ended."""
        return self.process.poll() is not None

    def stop(self):
        """Ask all of them to end, wait, then end them."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            left = _signal(self.process.pid, number)
            until = time.monotonic() + 30.0
            while left and time.monotonic() < until:
                time.sleep(0.05)
                self.process.poll()  # else its remains would count
                left = _signal(self.process.pid, 0)
        self.process.stdin.close()
        self.process.wait(10)


def _signal(group, number):
    """Whether there was anybody to get it."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


class _Program(_Group):
    """A program in Python, as a page shows it."""

    def __init__(self, path, environment):
        super().__init__([sys.executable, path.name], path.parent, path.with_suffix(".log"), environment)

    def end(self, block, code):
        """Wait until it ends; all that it printed."""
        try:
            self.process.wait(PATIENCE)
        finally:
            self.stop()
        assert self.process.returncode == code, f"line {block.line}: exit {self.process.returncode}\n{self.said}"
        return self.said


class _Shell(_Group):
    """One terminal."""

    def __init__(self, directory, logs, environment):
        self._number = 0
        self._logs = logs
        self.staying = False
        name = f"terminal-{time.monotonic_ns()}.log"
        super().__init__(["bash", "--noprofile", "--norc"], directory, logs / name, environment)

    @property
    def directory(self):
        """Where it is now."""
        return Path(f"/proc/{self.process.pid}/cwd").readlink()

    def run(self, text, block, code):
        """Do it; what it printed."""
        assert not self.staying, f"line {block.line}: this terminal is taken by what runs in it"
        self._number += 1
        script = self._logs / f"{self.process.pid}-{self._number}.sh"
        script.write_text(f"set -e\n{text}", encoding="utf-8")
        before, mark = len(self.said), f"== {self.process.pid} {self._number} =="
        # In a shell of its own where it shall fail; in this one otherwise, for the sake of `cd` and variables.
        how = f"(. {script}); code=$?" if code else f". {script}; code=0"
        line = f"{{ {how}; }} </dev/null; set +e; echo; echo '{mark}' $code"
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()
        if block.stays:
            self.staying = True
            return ""
        until = time.monotonic() + PATIENCE
        while f"{mark} " not in (said := self.said[before:]):
            assert not self.ended, f"line {block.line}: failed\n{text}\n{said}"
            assert time.monotonic() < until, f"line {block.line}: did not end\n{text}\n{said}"
            time.sleep(0.02)
        said, _, ended = said.partition(mark)
        assert int(ended.split()[0]) == code, f"line {block.line}: exit {ended.split()[0]}\n{text}\n{said}"
        return said
