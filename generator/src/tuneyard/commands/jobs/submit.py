# SPDX-License-Identifier: Apache-2.0
"""`tuneyard submit`: a Workflow from a form, without the page of Argo Workflows."""

from dataclasses import asdict

import click

from tuneyard.client import Forms, Parameter
from tuneyard.commands.jobs.asking import ask_for, say_how_to_repeat
from tuneyard.commands.jobs.options import output_option, print_json, with_forms
from tuneyard.commands.reporting import one
from tuneyard.views.jobs import table


@click.command()
@click.argument("template")
@click.option("-p", "--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option(
    "--name", help="Name of the workflow, and so of its job; otherwise TEMPLATE with five characters."
)
@click.option("--fields", is_flag=True, help="Print the parameters of the form, and submit nothing.")
@click.option(
    "--ask", is_flag=True, help="Ask for each parameter that no -p gives, in the order of the form."
)
@click.option("--dry-run", is_flag=True, help="Check the parameters, and submit nothing.")
@with_forms
@output_option
def command(
    template: str,
    parameters: tuple[str, ...],
    name: str | None,
    forms: Forms,
    output: str,
    *,
    fields: bool,
    ask: bool,
    dry_run: bool,
) -> None:
    """Submit the WorkflowTemplate TEMPLATE with these parameters.

    \b
    Examples:
      tuneyard submit finetune-pipeline --fields
      tuneyard submit finetune-pipeline --ask
      tuneyard submit fine-tune -p model=pvc:models/tiny-llama -p trainingData=pvc:datasets/train.jsonl

    All that is wrong with the parameters is said at once, and then nothing is created.
    """
    if fields:
        _print_form(one(lambda: forms.form(template)), output)
        return
    given = _given(parameters)
    if ask:
        given = ask_for(one(lambda: forms.form(template)), given)
        say_how_to_repeat(template, given)
        if not click.confirm("Submit it?", default=True, err=True):
            raise click.Abort
    made = one(lambda: forms.submit(template, given, name=name, dry_run=dry_run))
    if output == "json":
        print_json(asdict(made))
    elif dry_run:
        click.echo(f"the parameters fit {template} in namespace {made.namespace}")
    else:
        click.echo(f"workflow {made.namespace}/{made.name} is submitted")


def _given(words: tuple[str, ...]) -> dict[str, str]:
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{word!r} is not NAME=VALUE", param_hint="-p")
        if name in given:
            raise click.BadParameter(f"{name} is given twice", param_hint="-p")
        given[name] = value
    return given


def _print_form(form: tuple[Parameter, ...], output: str) -> None:
    if output == "json":
        print_json([asdict(parameter) for parameter in form])
        return
    rows = (
        (
            parameter.name,
            "required" if parameter.value is None else parameter.value or "-",
            ", ".join(parameter.enum) or "-",
            parameter.description,
        )
        for parameter in form
    )
    click.echo(table(("PARAMETER", "DEFAULT", "VALUES", "MEANING"), rows), nl=False)
