# SPDX-License-Identifier: Apache-2.0
"""The commands `tuneyard` and `kubectl tuneyard`. Commands import what they need when they run: every check pays for the start-up."""

import sys
from importlib import import_module
from typing import Any, ClassVar

import click

_COMMANDS = {
    "init": ("tuneyard.commands.init", "Write a small environment file to start from."),
    "check": ("tuneyard.commands.check", "Report every problem of environments."),
    "render": ("tuneyard.commands.render", "Write the GitOps tree of environments."),
    "diff": ("tuneyard.commands.diff", "Show what a render would change, or how two environments differ."),
    "sign": ("tuneyard.commands.sign", "Sign the rendered tree with a key of yours."),
    "verify": ("tuneyard.commands.verify", "Say which files of the tree are not as they were signed."),
    "graph": ("tuneyard.commands.graph", "Draw the order of installation with the reason of every edge."),
    "explain": (
        "tuneyard.commands.explain",
        "Explain a key: its meaning, the origin of its value, what it influences.",
    ),
    "query": ("tuneyard.commands.query", "Print one resolved value, for use in scripts."),
    "doctor": ("tuneyard.commands.doctor", "Check tools, cluster, Argo CD's settings and repositories."),
    "snapshot": ("tuneyard.commands.snapshot", "Print what environments are judged by, of a live cluster."),
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
    "upload": ("tuneyard.commands.upload", "Bring a data set to a Data Store or a bucket, for jobs to read."),
    "report": ("tuneyard.commands.report", "Print the report on a published adapter."),
    "submit": (
        "tuneyard.commands.jobs.submit",
        "Submit a form of Argo Workflows, such as finetune-pipeline.",
    ),
    "docs": ("tuneyard.commands.docs", "Write the sample file and the reference pages."),
}


_VERBS = {
    "list": ("tuneyard.commands.jobs.list", "List FineTuneJobs."),
    "describe": ("tuneyard.commands.jobs.describe", "Show one job, and where its time went."),
    "why": ("tuneyard.commands.jobs.why", "Say why a job waits or fails, and what to try."),
    "logs": ("tuneyard.commands.jobs.logs", "Print the log of the pod that matters."),
    "suspend": ("tuneyard.commands.jobs.suspend", "Let a job write a checkpoint and give its GPUs back."),
    "resume": ("tuneyard.commands.jobs.resume", "Let a suspended job go on."),
    "submit": ("tuneyard.commands.jobs.submit", "Submit a form of Argo Workflows."),
    "fetch": ("tuneyard.commands.jobs.fetch", "Copy what a job published, and say how to ask it."),
    "compare": ("tuneyard.commands.jobs.compare", "Compare two jobs: measures and specs."),
    "top": ("tuneyard.commands.jobs.top", "Show who trains, and GPU hours by namespace and by who asked."),
    "backup": ("tuneyard.commands.jobs.backup", "Write jobs and runtimes to a file."),
    "restore": ("tuneyard.commands.jobs.restore", "Make jobs and runtimes again from such a file."),
    "support-bundle": (
        "tuneyard.commands.jobs.support_bundle",
        "Collect what helps to find out what is wrong, without secrets.",
    ),
}


class _Lazy(click.Group):
    """Commands by name, each in a module of its own that is imported when it is called."""

    modules: ClassVar[dict[str, tuple[str, str]]] = _COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in self.modules:
            return None
        command: Any = import_module(self.modules[cmd_name][0])
        return command.command  # type: ignore[no-any-return]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.modules.items()])


class _Verbs(_Lazy):
    modules = _VERBS


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


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tuneyard", message="%(version)s")
def verbs() -> None:
    """Look at FineTuneJobs and steer them; kubectl finds this program as its plugin `kubectl tuneyard`.

    \b
    Examples:
      kubectl tuneyard list -A
      kubectl tuneyard why answers
      kubectl tuneyard logs answers -f
      kubectl tuneyard compare answers-1e4 answers-2e4

    It takes cluster, user and namespace from the kubeconfig, as kubectl does.
    """


def main() -> None:
    """Entry point."""
    cli.main(args=sys.argv[1:], prog_name="tuneyard")


def kubectl_plugin() -> None:
    """Entry point of `kubectl-tuneyard`."""
    verbs.main(args=sys.argv[1:], prog_name="kubectl tuneyard")
