"""The verbs that make what a new node needs: init, keygen.

Owns that nothing is ever overwritten and that secrets are made readable to their owner alone.
"""

import os
from pathlib import Path

import click

from dropr_core.cli.common import DEFAULT_FILE, verb
from dropr_core.cli.failures import Stop
from dropr_core.cli.output import echo, echo_json
from dropr_core.system.exit_codes import Exit


@verb("keygen", keys="`key` (null if it went into a file); with TRANSPORT also `public`.", config=False)
@click.argument("transport", required=False)
@click.option("--file", type=click.Path(path_type=Path), help="Write it there (mode 0600; never overwrites).")
@click.option("--public-of", type=click.Path(path_type=Path), help="Make none; show the public key of this file's.")
def keygen_verb(as_json: bool, transport: str | None, file: Path | None, public_of: Path | None) -> None:
    """Make a key for a pair of nodes. Both put the same key into their configuration, and nobody else has it.

    With TRANSPORT (such as zmq): make this node's own key of that transport instead, and show the public key
    that belongs to it, which its peers need.
    """
    if transport is not None:
        _transport_key(as_json, transport, file, public_of)
        return
    if public_of is not None:
        raise click.UsageError("--public-of needs the name of the transport: dropr keygen zmq --public-of FILE")
    from dropr_core.config.docs import make_key

    key = make_key()
    if file is not None:
        write_new(file, key + "\n")
    if as_json:
        echo_json({"key": None if file else key})
    elif file is None:
        echo(key)


def _transport_key(as_json: bool, transport: str, file: Path | None, public_of: Path | None) -> None:
    from dropr_core.plugin.registry import keypair

    if public_of is not None:
        if file is not None:
            raise click.UsageError("--file makes a key and --public-of looks at one; choose")
        try:
            stored = public_of.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise Stop(Exit.NO_INPUT, f"{public_of}: cannot be read: {reason}") from None
        secret, public = keypair(transport, stored)
    else:
        secret, public = keypair(transport)
    if file is not None:
        write_new(file, secret + "\n")
    shown = None if file or public_of else secret
    if as_json:
        echo_json({"key": shown, "public": public})
        return
    if shown:
        echo(f"secret: {shown}")
    echo(f"public: {public}" if shown else public)


@verb("init", keys="`config`, `key`: the files that were written (`key` null with --listen).", config=False)
@click.argument("file", type=click.Path(path_type=Path), default=Path(DEFAULT_FILE), required=False)
@click.option("--node", default="shop", show_default=True, help="What peers will call this node.")
@click.option("--peer", help="What this node calls its first peer. Default: warehouse; with --listen: none yet.")
@click.option("--url", default="http://127.0.0.1:8420", show_default=True, help="Where that peer listens.")
@click.option("--listen", multiple=True, metavar="URL", help="Where this node listens, such as http://0.0.0.0:8420.")
def init_verb(as_json: bool, file: Path, node: str, peer: str | None, url: str, listen: tuple[str, ...]) -> None:
    """Write a commented configuration to FILE (default: dropr.yaml), and a key beside it. Never overwrites.

    With --listen there is no peer yet and no key: `dropr invite NAME`, and `dropr join` on the other machine, write
    them.
    """
    from dropr_core.config.docs import init_text, make_key
    from dropr_core.config.node import parse
    from dropr_core.model.names import check_name

    check_name(node, "node")
    if peer is None and not listen:
        peer = "warehouse"
    key_file = None if peer is None else file.with_suffix(".key")
    if peer is not None:
        check_name(peer, "peer")
    for path in (file, key_file):
        if path is not None and os.path.lexists(path):
            raise Stop(Exit.CANTCREAT, f"{path} exists already and is left as it is; name another file")
    text = init_text(node, peer, url, f"${{file:{key_file.name}}}" if key_file else "", listen)
    if key_file is None:
        parse(text, file.absolute().parent, str(file))  # the URLs came from outside
    else:
        write_new(key_file, make_key() + "\n")
    try:
        write_new(file, text)
    except BaseException:
        if key_file is not None:
            key_file.unlink(missing_ok=True)
        raise
    if as_json:
        echo_json({"config": str(file), "key": str(key_file) if key_file else None})
        return
    if key_file is None:
        echo(f"wrote {file}")
        where = "" if file == Path(DEFAULT_FILE) else f" -c {file}"
        echo(f"next: 'dropr up{where}' to run it, 'dropr invite NAME{where}' to let another machine join")
        return
    echo(f"wrote {file} and {key_file}")
    echo(f"next: look through {file}, carry {key_file} to {peer} by a safe way, then 'dropr check -c {file}'")


def write_new(path: Path, text: str) -> None:
    """Write a file that did not exist, readable to its owner alone; stops with exit 73 if it cannot."""
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise Stop(Exit.CANTCREAT, f"{path} exists already and is left as it is; name another file") from None
    except OSError as error:
        raise Stop(Exit.CANTCREAT, f"{path}: {error.strerror}") from None
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(fd)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
