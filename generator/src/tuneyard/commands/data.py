# SPDX-License-Identifier: Apache-2.0
"""`tuneyard data`: what a fine-tuning job would say of a data set, without a cluster."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from tuneyard_api.job_inputs import DataFormat, Template

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def record_options(command: F) -> F:
    """The options that say how records are read, as `dataset` of a job does."""
    forms = click.Choice(get_args(DataFormat))
    for option in (
        click.option("--completion", help="As dataset.template.completion of a job; needs --prompt."),
        click.option("--prompt", help="As dataset.template.prompt of a job; needs --completion."),
        click.option(
            "--data-format", type=forms, default="auto", show_default=True, help="As dataset.format of a job."
        ),
    ):
        command = option(command)
    return command


@click.group()
def command() -> None:
    """Check data sets of fine-tuning jobs on this machine.

    \b
    Examples:
      tuneyard data check train.jsonl
      tuneyard data check train.jsonl --test test.jsonl --model models/llama --html report.html
    """


@command.command("check")
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option(
    "--model",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with the tokenizer of the model; without it, lengths are characters.",
)
@click.option("--validation", type=_FILE, help="Records that the loss is measured on.")
@click.option("--test", type=_FILE, help="Records that are compared with the training data.")
@record_options
@click.option(
    "--loss-on",
    type=click.Choice(["completion", "all"]),
    default="completion",
    show_default=True,
    help="As dataset.lossOn of a job.",
)
@click.option(
    "--max-sequence-length",
    type=click.IntRange(min=1),
    default=2048,
    show_default=True,
    help="As training.maxSequenceLength of a job, in tokens.",
)
@click.option(
    "--format", "style", type=click.Choice(["text", "json"]), default="text", help="Format of the report."
)
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Also write a page of HTML.")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too.")
def check_command(  # noqa: PLR0917  click passes them by name
    files: tuple[Path, ...],
    model: Path | None,
    validation: Path | None,
    test: Path | None,
    data_format: str,
    prompt: str | None,
    completion: str | None,
    loss_on: str,
    max_sequence_length: int,
    style: str,
    html: Path | None,
    strict: bool,
) -> None:
    """Report on the training data in FILES as a fine-tuning job would, before there is a job.

    The report has lengths, duplicates, leaks between the files, hints at personal data and languages. With --model it
    also says what is truncated and which tokens are learned. The exit code is 1 if a job would refuse the data.
    """
    if (prompt is None) != (completion is None):
        raise click.UsageError("--prompt and --completion belong together: they are one template")
    try:
        from tuneyard_data.checking import check_files  # noqa: PLC0415  an extra, and NumPy
        from tuneyard_data.loading import Reading  # noqa: PLC0415

        from tuneyard.commands.data_printing import print_checked  # noqa: PLC0415  imports the extra
    except ImportError as error:
        missing = (error.name or "tuneyard_data").partition(".")[0]
        click.echo(f"tuneyard data: {missing} is not installed; try the extra tuneyard[data]", err=True)
        raise SystemExit(2) from None
    _without_pytorch()
    template = None
    if prompt is not None and completion is not None:
        template = Template(prompt=prompt, completion=completion)
    reading = Reading(data_format, template, loss_on, max_sequence_length)
    splits = {"training": list(files)}
    splits |= {
        name: [path] for name, path in (("validation", validation), ("test", test)) if path is not None
    }
    checked = check_files(splits, model, reading, has_page=html is not None)
    if html is not None and checked.page is not None:
        html.write_bytes(checked.page)
    print_checked(checked, style)
    raise SystemExit(1 if checked.problems or (strict and checked.warnings) else 0)


def _without_pytorch() -> None:
    """Keeps transformers from importing PyTorch to read a tokenizer: 6 s and 600 MB more (5.23)."""
    from tuneyard_data.pretrained import hide_pytorch  # noqa: PLC0415  an extra

    hide_pytorch()
