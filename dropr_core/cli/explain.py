"""``explain``: what an error means and what to do, by its code.

Owns the verb. The texts stand in errors.md beside this file, one section for each public exception; docs/errors.md is
its copy. Must not know what raised the error.
"""

from importlib import resources

import click

from dropr_core.cli.common import verb
from dropr_core.cli.failures import not_found
from dropr_core.cli.output import echo, echo_json


def page() -> str:
    """All sections, as docs/errors.md has them."""
    return resources.files("dropr_core.cli").joinpath("errors.md").read_text(encoding="utf-8")


def sections() -> dict[str, str]:
    """Code → its section, without the heading."""
    parts = page().split("\n## ")[1:]
    return {part.split("\n", 1)[0].strip(): part.split("\n", 1)[1].strip() for part in parts}


@verb("explain", config=False, keys="`errors` with `code` and `text`, the section as docs/errors.md has it")
@click.argument("code", required=False)
def explain_verb(code: str | None, as_json: bool) -> None:
    """Say what an error means, what became of your messages, and what to do.

    CODE is the word in brackets at the end of an error. Without it: the list of all codes.
    """
    known = sections()
    if code is None and as_json:
        return echo_json({"errors": [{"code": name, "text": text} for name, text in known.items()]})
    if code is None:
        for name, text in known.items():
            echo(f"{name:16} {_first(text)}")
        return None
    wanted = code.strip("[]").lower()
    if wanted not in known:
        from difflib import get_close_matches

        near = get_close_matches(wanted, known, 1)
        raise not_found(f"there is no error '{code}'" + (f"; did you mean '{near[0]}'?" if near else ""))
    if as_json:
        return echo_json({"errors": [{"code": wanted, "text": known[wanted]}]})
    echo(wanted)
    for line in known[wanted].splitlines():
        echo(line.replace("**", "").replace("`", "'"))
    return None


def _first(text: str) -> str:
    happened = text.split("**What happened.**", 1)[1].split("**Your messages.**", 1)[0]
    return " ".join(happened.split()).split(". ")[0].split(": ")[0].rstrip(".")
