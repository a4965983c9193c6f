"""The text of a systemd unit that runs a whole node, and how such a file is known again.

Owns which settings such a unit has and why, the quoting of paths in it, and the first line by which `dropr install`
knows a file that it wrote itself and nobody changed. Must not know where units stand, which user is asking, or a node's
configuration: whoever calls has found that out.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

STATE = Path("/var/lib")
"""What lies below it, systemd makes and gives to the unit's user (StateDirectory=)."""

HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
"""What ProtectHome= hides."""

TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108  # not used, but looked at: PrivateTmp= hides them
WATCHDOG = 120
"""Seconds without a sign of the angel after which systemd starts the node anew."""

GRACE = 15
"""Seconds beyond the longest drain before systemd kills what has not ended."""

_MARK = re.compile(r"# Written by dropr install for (.+); sha256 ([0-9a-f]{64})\n")


@frozen
class UnitFacts:
    """What the unit of a node depends on. All paths are absolute; times are seconds."""

    node: str
    config: Path
    data: Path
    command: Sequence[str]
    """The program and its arguments."""
    user: str | None
    """Whom the node runs as; None: whose manager it is, in a unit of the user's own."""
    drain: float
    """How long the node may take to end."""
    programs: Sequence[Path] = ()
    """Where its programs stand: they must be seen."""
    writable: Sequence[Path] = ()
    """Where its handlers write, besides the data directory."""
    environment: Path | None = None
    """A file with variables for `${env:...}`; it must be there."""
    low_port: bool = False
    """Whether it listens below 1024."""


def render(facts: UnitFacts) -> str:
    """The content of the unit's file, its first line included."""
    return sign("\n".join([*_unit(facts), *_service(facts), *_hardening(facts), *_install(facts)]) + "\n", facts.config)


def sign(text: str, config: Path) -> str:
    """Put the line before a text by which it is known again."""
    return f"# Written by dropr install for {config}; sha256 {_digest(text)}\n{text}"


def written_for(content: str) -> str | None:
    """The configuration file for which this content was written, or None if we did not write it."""
    found = _MARK.match(content)
    return found[1] if found else None


def is_unchanged(content: str) -> bool:
    """Whether we wrote it and nobody has changed it since."""
    found = _MARK.match(content)
    return found is not None and _digest(content[found.end() :]) == found[2]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _unit(facts: UnitFacts) -> Iterator[str]:
    yield "# To change something: systemctl edit; what stands there wins and outlasts the next dropr install."
    yield "[Unit]"
    yield f"Description=dropr node {facts.node}"
    if facts.user is not None:  # a user's manager does not know the targets of the system
        yield "Wants=network-online.target"
        yield "After=network-online.target"
    yield f"RequiresMountsFor={_path(facts.data)} {_path(facts.config)}"


def _service(facts: UnitFacts) -> Iterator[str]:
    yield ""
    yield "[Service]"
    yield "Type=notify"
    if facts.user is not None:
        yield f"User={_plain(facts.user)}"
    yield f"WorkingDirectory={_plain(str(facts.config.parent))}"
    if facts.environment is not None:
        yield f"EnvironmentFile={_plain(str(facts.environment))}"
    yield "ExecStart=" + " ".join(_word(word) for word in facts.command)
    yield "ExecReload=/bin/kill -HUP $MAINPID"
    yield "Restart=always"
    yield "RestartSec=2"
    yield "# A wrong configuration (78) is put right by a person, not by another start."
    yield "RestartPreventExitStatus=78"
    yield "# The node is ready when all its processes serve; a large store is read through first after a power cut."
    yield "TimeoutStartSec=15min"
    yield f"WatchdogSec={WATCHDOG}"
    yield f"# Longer than angel.drain and worker.drain ({facts.drain:g} s)."
    yield f"TimeoutStopSec={facts.drain + GRACE:g}"
    yield "LimitNOFILE=65536"
    if facts.user is not None and (state := _state(facts.data)):
        yield f"StateDirectory={_path(state)}"
        yield "StateDirectoryMode=0700"


def _hardening(facts: UnitFacts) -> Iterator[str]:
    """What the node does not need is taken from it, and so from its handlers.

    MemoryDenyWriteExecute= is not here: handlers may use ctypes or a compiler. PrivateUsers= neither: the programs that
    send are other users of this machine. ProcSubset= neither: dropr reads the boot's id and the mounts. RemoveIPC=
    neither: it takes from every program of the user.
    """
    yield ""
    yield "UMask=0077"
    yield "NoNewPrivileges=yes"
    yield "LockPersonality=yes"
    yield "RestrictRealtime=yes"
    yield "RestrictSUIDSGID=yes"
    yield "RestrictNamespaces=yes"
    yield "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK"
    yield "SystemCallArchitectures=native"
    yield "SystemCallFilter=@system-service"
    yield "SystemCallErrorNumber=EPERM"
    if facts.user is None:  # the rest needs name spaces, which a user's manager may have or not
        return
    low = "CAP_NET_BIND_SERVICE" if facts.low_port else ""
    yield f"CapabilityBoundingSet={low}"
    yield f"AmbientCapabilities={low}"
    yield "ProtectSystem=strict"
    places = [facts.config, facts.data, *facts.programs, *facts.writable]
    # The paths below are the exception from it, where the node stands in a home.
    yield f"ProtectHome={'read-only' if _any_below(places, HOMES) else 'yes'}"
    yield f"PrivateTmp={'no' if _any_below(places, TEMPORARY) else 'yes'}"
    yield "PrivateDevices=yes"
    yield "ProtectClock=yes"
    yield "ProtectControlGroups=yes"
    yield "ProtectHostname=yes"
    yield "ProtectKernelLogs=yes"
    yield "ProtectKernelModules=yes"
    yield "ProtectKernelTunables=yes"
    yield "ProtectProc=invisible"
    for path in [*([] if _state(facts.data) else [facts.data]), *facts.writable]:
        yield f"ReadWritePaths={_path(path)}"


def _install(facts: UnitFacts) -> Iterator[str]:
    yield ""
    yield "[Install]"
    yield f"WantedBy={'default.target' if facts.user is None else 'multi-user.target'}"


def _state(data: Path) -> Path | None:
    """The data directory as StateDirectory= names it, if it lies where systemd keeps state."""
    return data.relative_to(STATE) if data != STATE and data.is_relative_to(STATE) else None


def _any_below(paths: Sequence[Path], roots: Sequence[Path]) -> bool:
    return any(path.is_relative_to(root) for path in paths for root in roots)


def _plain(text: str) -> str:
    """A value that runs to the end of its line; only specifiers have a meaning in it."""
    return text.replace("%", "%%")


def _path(path: Path) -> str:
    """One of several paths in a value."""
    return _quoted(str(path))


def _word(text: str) -> str:
    """One word of a command: no variable either."""
    return _quoted(text.replace("$", "$$"))


def _quoted(text: str) -> str:
    text = _plain(text)
    if re.fullmatch(r"[\w./@+:,%=~$-]+", text, re.ASCII):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
