# SPDX-License-Identifier: Apache-2.0
"""The command `tuneyard`. Commands import what they need when they run: every check pays for the start-up."""

import sys
from importlib import import_module
from typing import Any

import click

_COMMANDS = {
    "init": ("tuneyard.commands.init", "Write a small environment file to start from."),
    "check": ("tuneyard.commands.check", "Report every problem of environments."),
    "render": ("tuneyard.commands.render", "Write the GitOps tree of environments."),
    "diff": ("tuneyard.commands.diff", "Show what a render would change, or how two environments differ."),
    "graph": ("tuneyard.commands.graph", "Draw the order of installation with the reason of every edge."),
    "explain": (
        "tuneyard.commands.explain",
        "Explain a key: its meaning, the origin of its value, what it influences.",
    ),
    "query": ("tuneyard.commands.query", "Print one resolved value, for use in scripts."),
    "doctor": ("tuneyard.commands.doctor", "Check tools, cluster, Argo CD's settings and repositories."),
    "bootstrap": (
        "tuneyard.commands.bootstrap",
        "Configure Argo CD before the root Applications are applied.",
    ),
    "status": ("tuneyard.commands.status", "Show each wave in the cluster, and what blocks it."),
    "upgrade": ("tuneyard.commands.upgrade", "Compare pinned versions with a list of newer ones."),
    "completion": ("tuneyard.commands.completion", "Print the completion script for a shell."),
    "schemas": (
        "tuneyard.commands.schemas",
        "Add schemas of custom resources and values of charts for `check`.",
    ),
    "plan": ("tuneyard.commands.plan", "Say what a fine-tuning job takes: memory, time, GPU hours, cost."),
    "data": ("tuneyard.commands.data", "Check data sets of fine-tuning jobs, without a cluster."),
    "report": ("tuneyard.commands.report", "Print the report on a published adapter."),
    "docs": ("tuneyard.commands.docs", "Write the sample file and the reference pages."),
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
    """Turn one environment file into the whole GitOps tree of a fine-tuning platform.

    \b
    Examples:
      tuneyard init lab --preset nemo-microservices
      tuneyard check environments/lab.yaml
      tuneyard render environments/*.yaml
      tuneyard graph environments/lab.yaml --format svg > lab.svg

    The exit code is 0 when all is well, 1 when the input is wrong, something failed, or --check or --exit-code found a
    difference, and 2 when the command was called wrongly. Findings are printed to standard error and results to
    standard output. NO_COLOR is respected.
    """


def main() -> None:
    """Entry point."""
    cli.main(args=sys.argv[1:], prog_name="tuneyard")
