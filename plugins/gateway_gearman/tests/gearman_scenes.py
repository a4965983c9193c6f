"""What clients and workers say to a job server, scene by scene, and what it says back: run against gearmand and ours.

A scene gets a `Stage`, opens connections by name and writes down every answer. Handles are written as H1, H2 … in the
order of their appearance, so that two servers can be compared.
"""

import re
import time

from dropr_gateway_gearman.packets import Kind
from gearman_peer import Peer

_HANDLE = re.compile(rb"H:[A-Za-z0-9._-]+:[0-9a-f]+")
ENDS = re.compile(r"[+.].*")


class Stage:
    """One server, and the transcript of what it says."""

    def __init__(self, port):
        self._port = port
        self._peers = {}
        self._handles = {}
        self.lines = []

    def peer(self, name):
        if name not in self._peers:
            self._peers[name] = Peer(self._port)
        return self._peers[name]

    def say(self, name, kind, *arguments):
        """A packet without an answer; an echo makes sure that it was read."""
        self.peer(name).send(kind, *(self.real(one) for one in arguments))
        assert self.peer(name).idle()

    def send(self, name, kind, *arguments):
        """A packet whose answer is read with `hear`."""
        self.peer(name).send(kind, *(self.real(one) for one in arguments))

    def hear(self, name):
        """The next packet that comes."""
        kind, *arguments = self.peer(name).get()
        self.lines.append(" ".join([name, kind.name, *(self.masked(one) for one in arguments)]))

    def ask(self, name, kind, *arguments):
        self.send(name, kind, *arguments)
        self.hear(name)

    def quiet(self, name):
        """Nothing has come."""
        assert self.peer(name).idle(), self.lines

    def admin(self, line, *, many=False, sort=True):
        with Peer(self._port) as peer:
            answer = peer.text(self.real(line.encode()).decode(), many=many)
        lines = answer.splitlines()
        if many and sort:
            lines = [*sorted(lines[:-1]), lines[-1]]
        self.lines += [f"{line}: {self.masked(one.encode())}" for one in lines]

    def masked(self, data):
        def name(found):
            return self._handles.setdefault(found[0], b"H%d" % (len(self._handles) + 1))

        return repr(_HANDLE.sub(name, data))[1:]

    def real(self, data):
        for handle, name in self._handles.items():
            if data == name:
                return handle
            if data.startswith(b"cancel job ") and data.endswith(b" " + name):
                return data.replace(name, handle)
        return data

    def leave(self, name):
        self._peers.pop(name).close()

    def close(self):
        for peer in self._peers.values():
            peer.close()


def unknown_things(stage):
    """Jobs, options and packets that do not exist."""
    stage.ask("c", Kind.WORK_FAIL, b"H:x:1")
    stage.ask("c", Kind.WORK_COMPLETE, b"H:x:1", b"d")
    stage.ask("c", Kind.WORK_DATA, b"H:x:1", b"d")
    stage.ask("c", Kind.WORK_WARNING, b"H:x:1", b"d")
    stage.ask("c", Kind.WORK_STATUS, b"H:x:1", b"1", b"2")
    stage.ask("c", Kind.WORK_EXCEPTION, b"H:x:1", b"d")
    stage.ask("c", Kind.OPTION_REQ, b"nonsense")
    stage.ask("c", Kind.GET_STATUS, b"H:x:1")
    stage.ask("c", Kind.GET_STATUS_UNIQUE, b"nobody")
    stage.ask("c", Kind.NOOP)
    stage.ask("c", Kind.ALL_YOURS)
    stage.ask("c", Kind.SUBMIT_JOB_SCHED, b"f", b"", b"1", b"1", b"1", b"1", b"1", b"d")
    stage.ask("c", Kind.SUBMIT_JOB_BG, b"f", b"u" * 65, b"d")
    stage.ask("w", Kind.GRAB_JOB)
    stage.ask("c", Kind.ECHO_REQ, b"still\0here")


def foreground(stage):
    """Two clients wait for one job of a unique; both hear all that its worker says."""
    stage.ask("one", Kind.SUBMIT_JOB, b"reverse", b"same", b"abc")
    stage.ask("two", Kind.SUBMIT_JOB, b"reverse", b"same", b"other data")
    stage.say("w", Kind.CAN_DO, b"reverse")
    stage.ask("one", Kind.GET_STATUS_UNIQUE, b"same")
    stage.ask("w", Kind.GRAB_JOB_UNIQ)
    stage.ask("w", Kind.GRAB_JOB)
    stage.ask("one", Kind.GET_STATUS, b"H1")
    for kind, *said in [(Kind.WORK_STATUS, b"1", b"2"), (Kind.WORK_DATA, b"some"), (Kind.WORK_WARNING, b"hm")]:
        stage.send("w", kind, b"H1", *said)
        stage.hear("one")
        stage.hear("two")
    stage.ask("two", Kind.GET_STATUS_UNIQUE, b"same")
    stage.ask("one", Kind.WORK_COMPLETE, b"H1", b"of a stranger")
    stage.send("w", Kind.WORK_COMPLETE, b"H1", b"cba")
    stage.hear("one")
    stage.hear("two")
    stage.ask("one", Kind.GET_STATUS, b"H1")
    stage.ask("w", Kind.WORK_COMPLETE, b"H1", b"again")


def failures(stage):
    """WORK_FAIL, and WORK_EXCEPTION for clients that asked for it and that did not."""
    stage.say("w", Kind.CAN_DO, b"fails")
    stage.ask("one", Kind.SUBMIT_JOB, b"fails", b"", b"1")
    stage.ask("w", Kind.GRAB_JOB)
    stage.send("w", Kind.WORK_FAIL, b"H1")
    stage.hear("one")
    stage.ask("one", Kind.OPTION_REQ, b"exceptions")
    stage.ask("one", Kind.SUBMIT_JOB, b"fails", b"u", b"2")
    stage.ask("w", Kind.GRAB_JOB)
    stage.send("w", Kind.WORK_EXCEPTION, b"H2", b"no such thing")
    stage.hear("one")
    stage.ask("w", Kind.WORK_FAIL, b"H2")
    stage.quiet("one")
    stage.ask("w", Kind.GRAB_JOB)


def priorities(stage):
    """High before normal before low, and within one as they came."""
    for number, kind in enumerate([Kind.SUBMIT_JOB_LOW_BG, Kind.SUBMIT_JOB_BG, Kind.SUBMIT_JOB_HIGH_BG] * 2):
        stage.ask("c", kind, b"sorted", b"", b"%d" % number)
    stage.say("w", Kind.CAN_DO, b"sorted")
    for _ in range(7):
        stage.ask("w", Kind.GRAB_JOB)


def background(stage):
    """Background jobs join by their unique as long as the first one lives; after that a new one begins."""
    stage.ask("c", Kind.SUBMIT_JOB_BG, b"quiet", b"u1", b"first")
    stage.ask("c", Kind.SUBMIT_JOB_BG, b"quiet", b"u1", b"second")
    stage.ask("c", Kind.SUBMIT_JOB_BG, b"quiet", b"-", b"by data")
    stage.ask("c", Kind.SUBMIT_JOB_BG, b"quiet", b"-", b"by data")
    stage.ask("c", Kind.GET_STATUS, b"H1")
    stage.say("w", Kind.CAN_DO, b"quiet")
    stage.ask("w", Kind.GRAB_JOB_UNIQ)
    stage.ask("w", Kind.GRAB_JOB_ALL)
    stage.ask("c", Kind.SUBMIT_JOB_BG, b"quiet", b"u1", b"third")
    stage.say("w", Kind.WORK_COMPLETE, b"H1", b"ignored")
    stage.say("w", Kind.WORK_COMPLETE, b"H2", b"")
    time.sleep(0.2)
    stage.ask("w", Kind.GRAB_JOB)


def reduce(stage):
    """SUBMIT_REDUCE_JOB's second function is told to workers that ask with GRAB_JOB_ALL."""
    stage.ask("c", Kind.SUBMIT_REDUCE_JOB_BACKGROUND, b"mapped", b"u", b"reducer", b"", b"data")
    stage.ask("c", Kind.SUBMIT_REDUCE_JOB_BACKGROUND, b"mapped", b"u2", b"reducer", b"", b"data")
    stage.say("w", Kind.CAN_DO, b"mapped")
    stage.ask("w", Kind.GRAB_JOB_ALL)
    stage.ask("w", Kind.GRAB_JOB_UNIQ)


def abilities(stage):
    """A worker gets what it can do, and is woken for nothing else."""
    stage.say("w", Kind.CAN_DO, b"able")
    stage.send("w", Kind.PRE_SLEEP)
    stage.quiet("w")
    stage.ask("c", Kind.SUBMIT_JOB_BG, b"unable", b"", b"1")
    stage.quiet("w")
    stage.ask("c", Kind.SUBMIT_JOB_BG, b"able", b"", b"2")
    stage.hear("w")
    stage.ask("w", Kind.GRAB_JOB)
    stage.say("w", Kind.WORK_COMPLETE, b"H2", b"")
    stage.say("w", Kind.CANT_DO, b"able")
    stage.ask("c", Kind.SUBMIT_JOB_BG, b"able", b"", b"3")
    stage.ask("w", Kind.GRAB_JOB)
    stage.say("w", Kind.CAN_DO, b"unable")
    stage.ask("w", Kind.GRAB_JOB)
    stage.say("w", Kind.RESET_ABILITIES)
    stage.ask("w", Kind.GRAB_JOB)
    stage.say("w", Kind.CAN_DO, b"able")
    stage.ask("w", Kind.PRE_SLEEP)
    stage.ask("w", Kind.GRAB_JOB)


def admin(stage):
    """The texts of the admin protocol."""
    stage.admin("nonsense a b")
    stage.admin("show")
    stage.admin("show nothing")
    stage.admin("cancel")
    stage.admin("cancel x y")
    stage.admin("cancel job H:x:1")
    stage.admin("create")
    stage.admin("drop")
    stage.admin("drop function never-made")
    stage.admin("maxqueue")
    stage.admin("maxqueue some 10")
    stage.admin("shutdown graceful")
    stage.admin("")
    stage.ask("c", Kind.SUBMIT_JOB_BG, b"counted", b"a", b"1")
    stage.ask("c", Kind.SUBMIT_JOB_BG, b"counted", b"b", b"2")
    stage.say("w", Kind.CAN_DO, b"counted")
    stage.say("w", Kind.CAN_DO, b"idle")
    stage.ask("w", Kind.GRAB_JOB)
    stage.admin("status", many=True)
    stage.admin("STATUS", many=True)
    stage.admin("drop function counted")
    stage.admin("show unique jobs", many=True)
    stage.admin("show jobs", many=True)
    stage.admin("cancel job H2")
    stage.say("w", Kind.WORK_COMPLETE, b"H1", b"")
    time.sleep(0.2)
    stage.ask("w", Kind.GRAB_JOB)


def leaving(stage):
    """A worker that goes away leaves its job to the next one; the client that waits gets the result."""
    stage.ask("c", Kind.SUBMIT_JOB, b"left", b"", b"data")
    stage.say("w1", Kind.CAN_DO, b"left")
    stage.ask("w1", Kind.GRAB_JOB)
    stage.leave("w1")
    stage.say("w2", Kind.CAN_DO, b"left")
    stage.ask("w2", Kind.PRE_SLEEP)
    stage.ask("w2", Kind.GRAB_JOB)
    stage.send("w2", Kind.WORK_COMPLETE, b"H1", b"done")
    stage.hear("c")


SCENES = (unknown_things, foreground, failures, priorities, background, reduce, abilities, admin, leaving)
