"""The verb that teaches a shell the words of the command line: completion.

Owns nothing but the way to click's own scripts. Must not know the verbs.
"""

import click

from dropr_core.cli.common import verb
from dropr_core.cli.output import echo

VARIABLE = "_DROPR_COMPLETE"
"""What the scripts set when they ask; click looks for it at the start of every command."""


@verb("completion", config=False)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_verb(ctx: click.Context, shell: str) -> None:
    """Print a script that completes verbs, options and file names in your shell.

    bash: dropr completion bash > ~/.local/share/bash-completion/completions/dropr

    zsh: dropr completion zsh > ~/.zfunc/_dropr, with that directory in $fpath before compinit

    fish: dropr completion fish > ~/.config/fish/completions/dropr.fish
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    app = ctx.find_root().command
    script = made(app, {}, "dropr", VARIABLE)
    for line in (script.source_template % script.source_vars()).splitlines():
        echo(line)
