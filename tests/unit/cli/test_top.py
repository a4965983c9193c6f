"""`dropr top`: keys and lines of the view, lines of JSON, and the real thing on a terminal of its own."""

import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl

import msgspec
import pytest
from support.one_node import Peer, open_node

from dropr_core.cli.top import keys_of
from dropr_core.cli.top_table import sparkline
from dropr_core.cli.top_view import View, ordered, press, screen
from dropr_core.monitor.gathering import take_snapshot
from dropr_core.monitor.history import History
from dropr_core.monitor.snapshot import Daemon


@pytest.fixture
def history(tmp_path):
    """Three pictures: two peers (rome has more), two channels, and messages that came between."""
    found = History()
    with open_node(tmp_path) as node:
        lanes = {name: Peer(node, channel=name) for name in ("jobs", "a-channel-with-a-very-long-name")}
        for number in range(3):
            node.send(b"x", to="rome", channel="orders")
            for lane in lanes.values():
                lane.push(*[b"x"] * (number + 1))
            found.add(msgspec.structs.replace(take_snapshot(node.runtime), at=1000.0 + number))
        node.send(b"x", to="berlin", channel="orders")
        found.add(msgspec.structs.replace(take_snapshot(node.runtime), at=1003.0))
    return found


def pressed(history, *keys, view=None):
    """The view after some keys."""
    view = view or View()
    for key in keys:
        view = press(view, key, history.last, history.rates)
    return view


def shown(view, history, width=80, height=24):
    return [line.plain for line in screen(view, history, width, height)]


@pytest.mark.parametrize("size", [(80, 24), (40, 10), (200, 60), (20, 3), (120, 1)])
@pytest.mark.parametrize("keys", [(), ("?",), ("enter",), ("tab", "enter"), ("tab", "down")])
def test_a_screen_is_exactly_as_large_as_the_terminal(history, size, keys):
    """As many lines as it has, none wider, whatever is looked at."""
    width, height = size
    lines = screen(pressed(history, *keys), history, width, height)
    assert len(lines) == height
    assert all(line.cell_len <= width for line in lines)


def test_peers_and_channels_are_there_with_their_backlog(history):
    """Both tables, the largest backlog first, and the keys."""
    lines = shown(View(), history)
    rows = [line.split()[:3] for line in lines if line.startswith(("rome", "berlin", "jobs"))]
    assert rows == [["rome", "unknown", "3"], ["berlin", "unknown", "1"], ["jobs", "6", "0"]]
    assert any("nothing runs here" in line for line in lines)
    assert "q quit" in lines[-1]


def test_keys_sort_and_choose(history):
    """Each way of sorting, the other way round, and the row that is chosen."""
    assert ordered(View(), history.last, history.rates) == ["rome", "berlin"]
    assert ordered(pressed(history, "r"), history.last, history.rates) == ["berlin", "rome"]
    names = pressed(history, "s", "s", "s", "s")
    assert names.sort == "name"
    assert ordered(names, history.last, history.rates) == ["berlin", "rome"]
    assert pressed(history, "down", "down", "down").row == 1
    assert pressed(history, "up").row == 0
    assert pressed(history, "down", "k").row == 0


def test_enter_looks_into_a_peer_and_escape_comes_back(history):
    """A peer's facts and channels instead of the tables; back at the same row."""
    inside = pressed(history, "down", "enter")
    assert inside.into == "berlin"
    text = "\n".join(shown(inside, history))
    assert "peer berlin" in text
    assert "http://127.0.0.1:9" in text
    assert "orders" in text
    back = pressed(history, "esc", view=inside)
    assert (back.into, back.row) == (None, 1)


def test_tab_and_enter_look_into_a_channel(history):
    """The other table has the same keys."""
    inside = pressed(history, "tab", "s", "s", "s", "s", "down", "right")
    assert inside.into == "jobs"
    assert "channel jobs" in "\n".join(shown(inside, history))


def test_who_is_gone_is_looked_into_no_more(history):
    """A peer that was forgotten meanwhile shows the tables again, and no error."""
    assert any(line.startswith("PEER") for line in shown(View(into="gone"), history))


def test_a_long_list_shows_the_chosen_row(history):
    """Of a hundred peers those around the chosen one are shown, and how many are not."""
    (rome, berlin) = sorted(history.last.peers, key=lambda peer: peer.peer, reverse=True)
    many = tuple(msgspec.structs.replace(berlin, peer=f"peer-{number:03}") for number in range(100))
    history.last = msgspec.structs.replace(history.last, peers=(rome, *many))
    lines = shown(View(sort="name", row=70), history)
    assert any(line.startswith("peer-070") for line in lines)
    assert any("↑" in line and "↓" in line for line in lines if line.startswith("PEER"))


def test_other_keys_change_nothing(history):
    """A key without a meaning, one that has none here, and keys where nothing is to be chosen."""
    assert pressed(history, "x", "ctrl-x", "ä") == View()
    empty = History()
    empty.last = msgspec.structs.replace(history.last, peers=(), channels=())
    assert pressed(empty, "down", "enter", "up") == View()
    assert any("no peers" in line for line in shown(View(), empty))


def test_a_peer_that_only_calls_is_not_called_unknown(history):
    """A daemon that runs has nothing to say of a peer without an address; without a daemon nobody knows anything."""
    (berlin, rome) = history.last.peers
    running = msgspec.structs.replace(history.last.processes, daemon=Daemon(pid=1))
    history.last = msgspec.structs.replace(
        history.last, peers=(msgspec.structs.replace(berlin, url=None, mode="pull"), rome), processes=running
    )
    rows = [line.split()[:2] for line in shown(View(), history) if line.startswith(("rome", "berlin"))]
    assert sorted(rows) == [["berlin", "calls"], ["rome", "unknown"]]


def test_standing_still_is_said(history):
    """Nobody takes an old picture for a new one."""
    assert "STANDING STILL" in shown(pressed(history, "space"), history, width=120)[-1]


def test_what_a_peer_says_cannot_steer_the_terminal(history):
    """Errors come from elsewhere: signs that would move the cursor are shown as text."""
    (first, *rest) = history.last.peers
    bad = msgspec.structs.replace(first, state="resting", reason="\x1b[2Jgone\n", last_error="\x1b]0;x\x07")
    history.last = msgspec.structs.replace(history.last, peers=(bad, *rest))
    for view in (View(sort="name"), View(into=first.peer)):
        assert "\x1b" not in "".join(shown(view, history))


def test_keys_are_read_as_terminals_send_them():
    """Arrows in both modes, a lone escape, letters in one piece, and keys that are not known."""
    assert keys_of("\x1b[A\x1bOBq\x1b") == ["up", "down", "q", "esc"]
    assert keys_of("\t\r \x7f") == ["tab", "enter", "space", "backspace"]
    assert keys_of("\x1b[Hj") == ["j"]


def test_a_sparkline_has_the_last_numbers():
    """The largest is the full height, nothing is the lowest, and the newest stands to the right."""
    assert sparkline([0, 1, 2, 4], 6) == "  ▁▂▄█"
    assert sparkline([9] * 3 + [0, 0], 2) == "▁▁"
    assert sparkline([], 3) == "   "


def test_json_is_a_line_for_each_picture(run, put):
    """Programs follow with --json; the first line has no rates, the next ones have."""
    put(b"x")
    result = run("top", "--json", "--count", "3", "--every", "0.1s")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["rates"] is None for line in lines] == [True, False, False]
    assert lines[-1]["channels"][0]["ready"] == 1


def test_without_a_terminal_it_says_what_there_is_instead(run, put):
    """In a pipe nothing is drawn."""
    put(b"x")
    result = run("top")
    assert result.exit_code == 64
    assert "dropr top --json" in result.stderr


# ── on a terminal ────────────────────────────────────────────────────────────────────────────────

FILE = """
node: shop
data: ./data
limits: {min_free: 0}
peers:
  berlin: {url: "http://127.0.0.1:9", key: "0123456789abcdef0123456789abcdef"}
"""


class Terminal:
    """A program on a terminal of its own, 80 columns wide."""

    def __init__(self, *words, cwd):
        self.master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.said = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dropr_core", *words], cwd=cwd, stdin=slave, stdout=slave, stderr=slave,
            env={**os.environ, "TERM": "xterm-256color"},
        )  # fmt: skip

    def expect(self, text, since=0):
        """Wait until it has said this."""
        ends = time.monotonic() + 60
        while text not in self.said[since:]:
            assert time.monotonic() < ends, f"no {text!r} in {self.said[since:]!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                self.said += os.read(self.master, 65536).decode("utf-8", "replace")
        return len(self.said)

    def press(self, keys):
        """Type; from where in its output the answer is to be looked for."""
        at = len(self.said)
        os.write(self.master, keys.encode())
        return at

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(tmp_path):
    """`dropr` on a terminal, for a node with one message that waits."""
    (tmp_path / "dropr.yaml").write_text(FILE)
    sent = [sys.executable, "-m", "dropr_core", "send", "x", "--to", "berlin", "--channel", "orders"]
    subprocess.run(sent, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    made = []

    def start(*words):
        made.append(Terminal(*words, cwd=tmp_path))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_top_draws_answers_keys_and_leaves_the_terminal_as_it_was(terminal):
    """A whole visit: the table, a look into a peer and back, and q."""
    top = terminal("top", "--every", "0.2s")
    top.expect("PEER")
    top.expect("berlin")
    top.expect("address", top.press("\r"))
    top.expect("PEER", top.press("\x1b"))
    top.expect("this", top.press("?"))
    top.press("q")
    top.expect("\x1b[?1049l")
    assert top.process.wait(60) == 0
    assert termios.tcgetattr(top.slave) == top.before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_terminal_as_it_was(terminal, number):
    """Nobody's shell is left without echo, in the screen of a program that is gone."""
    top = terminal("top")
    top.expect("berlin")
    top.process.send_signal(number)
    top.expect("\x1b[?1049l")
    assert top.process.wait(60) == (0 if number == signal.SIGINT else 128 + number)
    assert termios.tcgetattr(top.slave) == top.before


def test_status_on_a_terminal_fits_its_width(terminal):
    """What a person sees has rates, and no line is broken in the middle of a table."""
    status = terminal("status")
    status.expect("disk:")
    assert status.process.wait(60) == 0
    rows = [line for line in status.said.splitlines() if "berlin" in line or "waiting" in line]
    assert "out/s" in rows[0]
    assert "waiting" in rows[0]
    assert "next try" in rows[0]
    assert "unknown" in rows[1]
