# SPDX-License-Identifier: Apache-2.0
"""`tuneyard query`: one resolved value, for scripts."""

import json
from pathlib import Path

import click

from tuneyard.commands.reporting import environment_file, one, root_option
from tuneyard.environment.reference import path_of
from tuneyard.pipeline import resolve_file
from tuneyard.views.explain import resolved, value_at


@click.command()
@click.argument("environment")
@click.argument("path", default="")
@root_option
def command(environment: str, path: str, root: Path) -> None:
    """Print the value at PATH of ENVIRONMENT, defaults and derived values included; texts bare, all else as JSON.

    \b
    Examples:
      tuneyard query lab cluster.kubernetes
      tuneyard query lab derived.urls.entity-store
      tuneyard query lab models[0].lora
    """
    file = environment_file(environment, root)
    _, stack = one(lambda: resolve_file(file))
    value = one(lambda: value_at(resolved(stack), path_of(path), str(file)))
    click.echo(value if isinstance(value, str) else json.dumps(value, indent=2))
