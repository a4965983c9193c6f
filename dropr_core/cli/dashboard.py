"""The verb that shows where the page of a node is: dashboard.

Owns the link, with the token in it, and what to say where there is no page. Opens no store.
"""

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dropr_core.cli.common import find_config, load_config, verb
from dropr_core.cli.failures import Stop
from dropr_core.cli.output import echo, echo_json
from dropr_core.system.exit_codes import Exit

if TYPE_CHECKING:
    from dropr_core.config.node import NodeConfig


@verb(
    "dashboard",
    keys="`links` (a list: URLs with the token in them; whoever has one may look and act), `running` (true or false).",
)
@click.option("--open", "open_browser", is_flag=True, help="Open it in this machine's browser as well.")
def dashboard_verb(config_file: Path | None, as_json: bool, open_browser: bool) -> None:
    """Show the link to the page of this node. It has the token in it: whoever gets it may look and act."""
    from dropr_core.monitor.access import token_of
    from dropr_core.system.presence import living

    path = find_config(config_file)
    config = load_config(path)
    if not config.monitor.listen:
        raise Stop(
            Exit.CONFIG,
            f"{path}: node {config.node} has no page; say where: monitor: {{listen: http://127.0.0.1:8429}}",
        )
    token = token_of(config)
    running = [url for one in living(config.data / "run", "monitor") for url in one.get("urls", ())]
    links = [_link(url, token) for url in running or _configured(config)]
    if as_json:
        echo_json({"links": links, "running": bool(running)})
    else:
        for link in links:
            echo(link)
        if not running:
            role = "monitor" if "monitor" in config.run else "server"
            echo(f"nobody serves it now: 'dropr up' starts everything, 'dropr {role}' this alone")
    web = [link for link in links if link.startswith("http")]
    if open_browser and running and web:
        click.launch(web[0])
    if not running:
        raise Stop(Exit.FAILED)


def _configured(config: "NodeConfig") -> list[str]:
    from dropr_core.monitor.host import addresses_of

    return [
        f"unix://{one.path}" if one.scheme == "unix"
        else f"{one.scheme}://{f'[{one.host}]' if ':' in one.host else one.host}:{one.port}"
        for one in addresses_of(config)
    ]  # fmt: skip


def _link(url: str, token: str) -> str:
    """For a browser; a socket file has none, programs show the token there themselves."""
    if url.startswith("unix:"):
        return url
    for everywhere in ("//0.0.0.0:", "//[::]:"):
        url = url.replace(everywhere, f"//{socket.gethostname()}:")
    return f"{url}/#token={token}"
