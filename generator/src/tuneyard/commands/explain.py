# SPDX-License-Identifier: Apache-2.0
"""`tuneyard explain`: what a key does, where its value came from, and what it influences."""

import json
from pathlib import Path

import click
from tuneyard_api.problems import Path as KeyPath

from tuneyard.commands.reporting import environment_file, one, root_option
from tuneyard.environment.reference import key_summary, path_of
from tuneyard.pipeline import Built, build
from tuneyard.stack.model import Stack
from tuneyard.views.explain import origin, resolved, value_at
from tuneyard.views.influence import Influences


@click.command()
@click.argument("environment")
@click.argument("path")
@root_option
def command(environment: str, path: str, root: Path) -> None:
    """Say what the key or component at PATH does in ENVIRONMENT, where its value came from and what it influences.

    What it influences is found out by rendering again with other values of the same kind, one after the other.

    \b
    Examples:
      tuneyard explain lab storage.readWriteOnce.className
      tuneyard explain lab components.milvus
    """
    file = environment_file(environment, root)
    built: Built = one(lambda: build(file, root))
    where = path_of(path)
    if where[:1] == ("components",) and len(where) == 2 and (text := _component(built.stack, str(where[1]))):  # noqa: PLR2004
        click.echo(text, nl=False)
        return
    value = one(lambda: value_at(resolved(built.stack), where, str(file)))
    kind, says = key_summary(where) or ("any", "a derived value")
    click.echo(f"{path}: {says}")
    click.echo(f"  type: {kind}")
    click.echo(f"  value: {value if isinstance(value, str) else json.dumps(value)}")
    click.echo(f"  from: {origin(built.loaded.source, where, built.stack)}")
    click.echo(f"  influences: {_influences(built, where, root)}")


def _influences(built: Built, path: KeyPath, root: Path) -> str:
    if path[:1] == ("derived",):
        return "nothing by itself; it changes with the keys that it is derived from"
    found = Influences(built, root).of(path)
    if not found.tried:
        return f"not found out; with another value there is no tree ({found.refused})"
    return ", ".join(sorted(found.components)) or "nothing that is rendered (checks only)"


def _component(stack: Stack, name: str) -> str | None:
    """A component's summary, or None when the environment does not have it."""
    component = stack.component(name)
    if component is None:
        return None
    pin = stack.pin(name)
    lines = [
        f"{name}: {component.summary}",
        f"  from: {stack.reasons[name]}",
        f"  namespace: {component.namespace or '-'}",
        f"  provides: {', '.join(component.provides)}",
    ]
    lines += [
        f"  needs {need.capability} from {stack.providers[need.capability].name}: {need.because}"
        for need in stack.needs(component)
    ]
    if pin.chart:
        lines.append(
            f"  chart: {pin.chart} {pin.version} from {pin.repository} (values by {pin.evidence}: {pin.source})"
        )
    if pin.licence:
        lines.append(f"  licence: {pin.licence}")
    return "\n".join(lines) + "\n"
