# SPDX-License-Identifier: Apache-2.0
"""`tuneyard completion`: the shell's side of completing commands and options."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    Examples:
      tuneyard completion zsh > ~/.zfunc/_tuneyard
      tuneyard completion fish > ~/.config/fish/completions/tuneyard.fish
    """
    root = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    if kind is None:
        raise click.BadParameter(f"{shell} is not known")
    click.echo(kind(root, {}, "tuneyard", "_TUNEYARD_COMPLETE").source())
