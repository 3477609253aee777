# SPDX-License-Identifier: Apache-2.0
"""The form of a WorkflowTemplate in the terminal: one question for each parameter that was not given.

Questions go to stderr, so that what `tuneyard submit` prints can still be read by a program.
"""

import shlex
from collections.abc import Iterable, Mapping

import click

from tuneyard.client import Parameter


def ask_for(form: Iterable[Parameter], given: Mapping[str, str]) -> dict[str, str]:
    """The parameters to submit: `given`, and the answers that are not the form's default.

    A parameter with allowed values is asked for again until one of them is typed, and a required one until anything is.
    Raises click.Abort at the end of the input and at Ctrl-C.
    """
    form = tuple(form)
    answers = dict(given)
    open_ones = [parameter for parameter in form if parameter.name not in given]
    for place, parameter in enumerate(open_ones, 1):
        click.echo(f"\n[{place}/{len(open_ones)}] {parameter.description or parameter.name}", err=True)
        answer = _answer(parameter)
        if answer != parameter.value:
            answers[parameter.name] = answer
    return answers


def say_how_to_repeat(template: str, given: Mapping[str, str]) -> None:
    """Print the command that submits the same without a question."""
    words = [word for name, value in given.items() for word in ("-p", f"{name}={value}")]
    click.echo(f"\n{shlex.join(['tuneyard', 'submit', template, *words])}", err=True)


def _answer(parameter: Parameter) -> str:
    kind = click.Choice(parameter.enum) if parameter.enum else click.STRING
    while True:
        answer = str(click.prompt(parameter.name, default=parameter.value, type=kind, err=True))
        if answer.strip() or parameter.value is not None:
            return answer
        click.echo("a value is needed", err=True)
