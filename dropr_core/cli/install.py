"""The verb that makes a node a service of this machine: install.

Owns which unit file it is, whose node it is, and that nothing is overwritten or removed which this verb did not write.
What stands in the unit is in angel/unit.py. Must not speak to systemd: it says which commands to type.
"""

import os
import pwd
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from dropr_core.cli.common import find_config, load_config, verb
from dropr_core.cli.failures import Stop
from dropr_core.cli.output import echo, echo_json
from dropr_core.system.exit_codes import Exit

if TYPE_CHECKING:
    from dropr_core.config.node import NodeConfig

SYSTEM = Path("/etc/systemd/system")
_VARIABLE = re.compile(r"(?<!\$)\$\{env:(\w+)")


@verb(
    "install",
    keys="`unit` (the file), `written`, `removed` (true or false), `user` (null in a user's own unit), `text` (the "
    "unit's content), `warnings` and `next` (lists of texts; `next`: the commands to type).",
)
@click.option("--system/--user", "system", default=None, help="For the machine (default for root), or for this user.")
@click.option("--run-as", metavar="USER", help="Whose the node is. Default: the owner of its data directory or file.")
@click.option("--name", metavar="UNIT", help="Name of the unit. Default: dropr-NODE.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where the unit goes. Default: where systemd looks.")
@click.option("--env-file", type=click.Path(path_type=Path), help="A file with the variables of ${env:...}.")
@click.option(
    "--writable", multiple=True, type=click.Path(path_type=Path), help="Where handlers write; more than once."
)
@click.option("--print", "show", is_flag=True, help="Show the unit; write nothing.")
@click.option("--uninstall", is_flag=True, help="Remove the unit. The node's data stays.")
def install_verb(
    config_file: Path | None,
    as_json: bool,
    system: bool | None,
    run_as: str | None,
    name: str | None,
    directory: Path | None,
    env_file: Path | None,
    writable: tuple[Path, ...],
    show: bool,
    uninstall: bool,
) -> None:
    """Write a systemd unit that runs the whole node by `dropr up`: ready, watchdog, reload, hardening.

    It is told to systemd by the commands that are shown then. A unit that was not written by this verb, or was changed
    since, is left as it is. Run it again after the configuration has changed its ports, drains or directories.
    """
    if show and uninstall:
        raise click.UsageError("--print shows a unit and --uninstall removes one; choose")
    path = find_config(config_file).absolute()
    system = os.geteuid() == 0 if system is None else system
    control = "systemctl" if system else "systemctl --user"
    place = (directory or (SYSTEM if system else _own_units())).absolute()
    if uninstall:  # with a name also for a node whose file is wrong or gone
        unit = place / f"{_unit_name(name or f'dropr-{load_config(path).node}')}.service"
        removed = _remove(unit, path, control)
        if as_json:
            echo_json({"unit": str(unit), "written": False, "removed": removed, "user": None, "text": None,
                       "warnings": [], "next": [f"{control} daemon-reload"] if removed else []})  # fmt: skip
            return
        echo(f"removed {unit}; the node's data stays" if removed else f"there is no {unit}")
        if removed:
            echo(f"next: {control} daemon-reload")
        return
    config = load_config(path)
    unit = place / f"{_unit_name(name or f'dropr-{config.node}')}.service"
    user = _user(config, path, run_as) if system else None
    text = _text(config, path, user, env_file, writable)
    warnings = [*_warnings(path, env_file), *_strange_owners(config, path, user)]
    written = not show
    if written:
        if user is not None:
            _make_data(config, user)
        _write(unit, path, text)
    commands = [f"{control} daemon-reload", f"{control} enable --now {unit.name}"]
    if not system:
        commands.append(f"loginctl enable-linger {pwd.getpwuid(os.geteuid()).pw_name}")
    if as_json:
        echo_json({"unit": str(unit), "written": written, "removed": False, "user": user, "text": text,
                   "warnings": warnings, "next": commands})  # fmt: skip
        return
    for warning in warnings:
        click.echo(f"dropr: {warning}", err=True)
    if show:
        click.echo(text, nl=False)
        return
    echo(f"wrote {unit}")
    for command in commands:
        echo(f"next: {command}")


def _own_units() -> Path:
    """Where a user's own manager looks."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "systemd" / "user"


def _unit_name(name: str) -> str:
    text = name.removesuffix(".service")
    if not re.fullmatch(r"[\w.:-]{1,200}", text, re.ASCII):
        raise Stop(
            Exit.USAGE, f"{text!r} is no name of a unit: letters, digits and . : _ - without a space; use --name"
        )
    return text


def _user(config: "NodeConfig", path: Path, run_as: str | None) -> str:
    """Whose the node is. Stops if that cannot be known, or would be root without anybody having said so."""
    if run_as is not None:
        try:
            return pwd.getpwnam(run_as).pw_name
        except KeyError:
            raise Stop(
                Exit.USAGE,
                f"there is no user {run_as!r} on this machine; make one by: "
                f"useradd --system --shell /usr/sbin/nologin {run_as}",
            ) from None
    for place in (config.data, path):
        try:
            owner = place.stat().st_uid
        except OSError:
            continue
        if owner != 0:
            try:
                return pwd.getpwuid(owner).pw_name
            except KeyError:
                raise Stop(Exit.USAGE, f"{place} belongs to user {owner}, who has no name; say --run-as USER") from None
    raise Stop(
        Exit.USAGE,
        f"{path} and the data of its node belong to root, and a node needs no rights of root: say --run-as USER "
        "(--run-as root if it must be)",
    )


def _text(config: "NodeConfig", path: Path, user: str | None, env_file: Path | None, writable: tuple[Path, ...]) -> str:
    from dropr_core.angel.unit import UnitFacts, render

    program = Path(sys.executable).with_name("dropr")
    command = [str(program)] if os.access(program, os.X_OK) else [sys.executable, "-m", "dropr_core"]
    sockets = {
        Path(urlsplit(url).path).parent
        for gateway in config.gateways.values()
        for url in gateway.listen
        if url.startswith("unix:///")
    }
    places = [config.data, path, *(place.absolute() for place in writable), *([] if env_file is None else [env_file])]
    for place in [*places, *sockets, Path(sys.executable)]:
        if re.search(r"[\x00-\x1f\x7f]", str(place)):
            raise Stop(Exit.USAGE, f"{str(place)!r} has a character that no unit can name; move it")
    return render(
        UnitFacts(
            node=config.node,
            config=path,
            data=config.data.absolute(),
            command=[*command, "up", "-c", str(path)],
            user=user,
            drain=max(config.angel.drain, config.worker.drain),
            programs=[Path(sys.executable).absolute(), Path(sys.prefix), Path(sys.base_prefix)],
            writable=[*(place.absolute() for place in writable), *sorted(sockets)],
            environment=None if env_file is None else env_file.absolute(),
            low_port=any(_is_low(url) for url in (*config.listen, *_gateway_urls(config))),
        )
    )


def _gateway_urls(config: "NodeConfig") -> list[str]:
    return [url for gateway in config.gateways.values() for url in gateway.listen]


def _is_low(url: str) -> bool:
    """Whether only root, or who may bind there, can listen at it."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        return False
    return 0 < port < 1024


def _warnings(path: Path, env_file: Path | None) -> list[str]:
    names = sorted(set(_VARIABLE.findall(path.read_text(encoding="utf-8"))))
    if not names or env_file is not None:
        return []
    text = (
        f"{path} needs {', '.join(names)} from the environment, which a service does not have: write them into a file "
        "(NAME=value, mode 0600) and say --env-file FILE"
    )
    return [text]


def _strange_owners(config: "NodeConfig", path: Path, user: str | None) -> list[str]:
    """What the node's user will not be able to use, as far as its owner shows."""
    mine = os.geteuid() if user is None else pwd.getpwnam(user).pw_uid
    found = []
    for place in (config.data, path):
        try:
            status = place.stat()
        except OSError:
            continue
        closed = place == config.data or not status.st_mode & 0o044  # a file may be open to a group or to all
        if closed and mine not in (status.st_uid, 0):
            whom = pwd.getpwuid(mine).pw_name
            found.append(f"{place} belongs to another user, and the node runs as {whom}; run: chown -R {whom} {place}")
    return found


def _make_data(config: "NodeConfig", user: str) -> None:
    """The data directory, for its user alone: what is not there cannot be made writable for the unit."""
    from dropr_core.angel.unit import STATE

    if config.data.exists() or config.data.is_relative_to(STATE):  # the latter: StateDirectory= makes it
        return
    entry = pwd.getpwnam(user)
    try:
        config.data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(config.data, entry.pw_uid, entry.pw_gid)
    except OSError as error:
        raise Stop(Exit.CANTCREAT, f"{config.data}: {error.strerror}; make it for {user}, then try again") from None


def _read(unit: Path) -> str | None:
    """What stands there; None for nothing. Stops for what cannot be one of ours."""
    if unit.is_symlink():
        raise Stop(Exit.CANTCREAT, f"{unit} is a link, which 'dropr install' never makes; it is left as it is")
    try:
        return unit.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Stop(Exit.NO_PERMISSION, f"{unit}: {error.strerror}") from None


def _check_ours(unit: Path, content: str, path: Path) -> None:
    """Stop unless we wrote it, for this node, and nobody has changed it."""
    from dropr_core.angel.unit import is_unchanged, written_for

    owner = written_for(content)
    if owner is None:
        raise Stop(
            Exit.CANTCREAT, f"{unit} was not written by 'dropr install' and is left as it is; choose another --name"
        )
    if owner != str(path):
        raise Stop(Exit.CANTCREAT, f"{unit} runs the node of {owner} and is left as it is; choose another --name")
    if not is_unchanged(content):
        raise Stop(
            Exit.CANTCREAT,
            f"{unit} was changed since 'dropr install' wrote it, and is left as it is; carry the change to a drop-in "
            f"(systemctl edit {unit.name}), then remove the file and try again",
        )


def _write(unit: Path, path: Path, text: str) -> None:
    there = _read(unit)
    if there is not None:
        _check_ours(unit, there, path)
    temporary = unit.with_name(f".{unit.name}.{os.getpid()}.new")
    try:
        unit.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as stream:
                os.fchmod(fd, 0o644)  # no secrets in it; systemctl of every user reads it
                stream.write(text)
                stream.flush()
                os.fsync(fd)
            temporary.replace(unit)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        hint = "; run it as root, or with --user" if isinstance(error, PermissionError) else ""
        raise Stop(Exit.CANTCREAT, f"{unit}: {error.strerror}{hint}") from None


def _remove(unit: Path, path: Path, control: str) -> bool:
    """Whether there was one to remove."""
    there = _read(unit)
    if there is None:
        return False
    _check_ours(unit, there, path)
    if any(os.path.lexists(wanted / unit.name) for wanted in unit.parent.glob("*.wants")):
        raise Stop(Exit.UNAVAILABLE, f"{unit.name} is enabled; first: {control} disable --now {unit.name}")
    try:
        unit.unlink()
    except OSError as error:
        raise Stop(Exit.NO_PERMISSION, f"{unit}: {error.strerror}") from None
    return True
