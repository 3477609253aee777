# SPDX-License-Identifier: Apache-2.0
"""The command `tuneyard`. Commands import what they need when they run: start-up is part of every check."""

import sys
from importlib import import_module
from typing import Any

import click

_COMMANDS = {
    "init": ("tuneyard.commands.init", "Write a small environment to start from."),
    "check": ("tuneyard.commands.check", "Say everything that is wrong with environments."),
    "render": ("tuneyard.commands.render", "Write the GitOps tree of environments."),
    "diff": ("tuneyard.commands.diff", "Show what a render would change, or how two environments differ."),
    "graph": ("tuneyard.commands.graph", "Draw the order with the reason of every edge."),
    "explain": (
        "tuneyard.commands.explain",
        "Say what a key does, where its value came from, what it influences.",
    ),
    "query": ("tuneyard.commands.query", "Print one resolved value, for scripts."),
    "doctor": ("tuneyard.commands.doctor", "Look at tools, cluster and Argo CD's settings."),
    "bootstrap": (
        "tuneyard.commands.bootstrap",
        "Prepare Argo CD before the first sync: health checks, project, repositories.",
    ),
    "status": ("tuneyard.commands.status", "Show each wave in the cluster and what blocks it."),
    "upgrade": ("tuneyard.commands.upgrade", "Show which pins are older than a list says."),
    "completion": ("tuneyard.commands.completion", "Print the completion script of a shell."),
    "schemas": (
        "tuneyard.commands.schemas",
        "Keep schemas of custom resources and values of charts for check.",
    ),
    "docs": ("tuneyard.commands.docs", "Write what is generated from the model: sample, reference pages."),
}


class _Lazy(click.Group):
    """Commands by name, each in a module of its own that is imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        command: Any = import_module(_COMMANDS[cmd_name][0])
        return command.command  # type: ignore[no-any-return]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tuneyard", message="%(version)s")
def cli() -> None:
    """One environment file becomes the whole GitOps tree.

    \b
    Examples:
      tuneyard init lab --preset nemo-microservices
      tuneyard check environments/lab.yaml
      tuneyard render environments/*.yaml
      tuneyard graph environments/lab.yaml --format svg > lab.svg

    Exit codes: 0 all is well; 1 the input is wrong, something failed, or --check or --exit-code found a difference;
    2 the command was called wrongly. Findings go to standard error, results to standard output. NO_COLOR is respected.
    """


def main() -> None:
    """Entry point."""
    cli.main(args=sys.argv[1:], prog_name="tuneyard")
