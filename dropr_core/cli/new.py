"""The verb that begins something new for a programmer: new.

Owns what a generated plugin package consists of; the texts stand in dropr_core/templates/. Nothing is ever
overwritten. Must not know what the plugins do.
"""

import os
import re
from importlib.resources import files
from pathlib import Path
from string import Template

import attrs
import click

from dropr_core import __version__
from dropr_core.cli.common import verb
from dropr_core.cli.failures import Stop
from dropr_core.cli.output import echo, echo_json
from dropr_core.errors import BadName
from dropr_core.system.exit_codes import Exit

TEST = "test_contract.py.tmpl"
_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")


@attrs.frozen
class Sort:
    """What the README of a kind says."""

    about: str
    yaml: str
    needs: tuple[str, ...] = ("attrs>=23.2",)
    """What its code imports beside dropr."""
    tests: tuple[str, ...] = ()
    """What its tests need beside the kit."""


SORTS = {
    "storage": Sort(
        "It keeps each half of a node in one SQLite file: complete, durable, for many processes; to be made your own.",
        "storage: {use: $name, busy: 5s}",
    ),
    "transport": Sort(
        "It moves requests and answers as files in a folder that both nodes see, or that somebody carries.",
        "listen: [$name:///srv/shared/warehouse]\npeers:\n"
        "  shop: {url: $name:///srv/shared/shop, key: '$${file:shop.key}'}",
        tests=("dropr-storage-sqlite",),  # two nodes of several processes each
    ),
    "serializer": Sort(
        "It sends values as MessagePack. The receiving node finds it by the content type of a message: name it there\n"
        "for one of its channels too.",
        "channels:\n  orders: {to: warehouse, serializer: $name}",
        needs=("msgspec>=0.18",),
    ),
    "handler": Sort(
        "It writes each message as a line into a file.", "channels:\n  orders: {handler: '$name:/var/log/orders'}"
    ),
    "gateway": Sort(
        "It opens a door for programs that speak a small dialect of lines, onto this node's outbox and inbox. Its\n"
        "parser does no I/O. To be made the dialect of yours.",
        "gateways:\n  $name: {listen: 'tcp://127.0.0.1:7711'}",
    ),
    "observer": Sort(
        "It counts what happens; each process adds a line to the file when it ends, and `total` adds them up.",
        "observers:\n  - {use: $name, file: figures.jsonl}",
    ),
}  # fmt: skip


def render(kind: str, name: str) -> dict[str, str]:
    """Path inside the package's directory → text, of a plugin of that kind and name. Raises BadName."""
    if not _NAME.fullmatch(name) or len(name) > 40:
        raise BadName(f"'{name}': a plugin's name is small letters, digits and single dashes, such as my-{kind}")
    plain = name.replace("-", "_")
    module = f"dropr_{kind}_{plain}"
    words = {
        "kind": kind,
        "name": name,
        "module": module,
        "distribution": f"dropr-{kind}-{name.replace('_', '-')}",
        "Class": "".join(part.capitalize() for part in plain.split("_")) + kind.capitalize(),
    }
    sort = SORTS[kind]
    words["about"] = sort.about
    words["dependencies"] = ", ".join(f'"{one}"' for one in (*sort.needs, f"dropr-core>={__version__}"))
    words["tests"] = ", ".join(f'"{one}"' for one in ("dropr-core[testing]", *sort.tests))
    words["yaml"] = Template(sort.yaml).substitute(words)
    where = files("dropr_core") / "templates"
    parts = {
        "pyproject.toml": where / "pyproject.toml.tmpl",
        "README.md": where / "README.md.tmpl",
        "tests/test_contract.py": where / kind / TEST,
    }
    code = [part for part in (where / kind).iterdir() if part.name.endswith(".py.tmpl")]
    parts |= {f"{module}/{part.name.removesuffix('.tmpl')}": part for part in code if part.name != TEST}
    out = {path: Template(part.read_text(encoding="utf-8")).substitute(words) for path, part in parts.items()}
    out[f"{module}/py.typed"] = ""
    return out


@verb("new", keys="`directory`, `files`: what was written.", config=False)
@click.argument("what", type=click.Choice(["plugin"]))
@click.argument("kind", type=click.Choice(list(SORTS)))
@click.argument("name")
@click.option("--into", type=click.Path(path_type=Path), help="The directory to make. Default: dropr-KIND-NAME here.")
def new_verb(as_json: bool, what: str, kind: str, name: str, into: Path | None) -> None:  # noqa: ARG001
    """Write a complete plugin package that works and can be installed: code, contract test, README.

    dropr new plugin transport pigeon
    """
    texts = render(kind, name)
    directory = into or Path(f"dropr-{kind}-{name.replace('_', '-')}")
    if os.path.lexists(directory):
        raise Stop(Exit.CANTCREAT, f"{directory} exists already and is left as it is; name another one with --into")
    try:
        for path, text in texts.items():
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Stop(Exit.CANTCREAT, f"{error.filename or directory}: {error.strerror}") from None
    if as_json:
        echo_json({"directory": str(directory), "files": sorted(texts)})
        return
    echo(f"wrote {directory} with {len(texts)} files")
    echo(f"next: cd {directory} && pip install -e '.[test]' && pytest")
