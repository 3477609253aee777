# SPDX-License-Identifier: Apache-2.0
"""`tuneyard report`: what the publish stage wrote beside an adapter, from a registry on this machine."""

from pathlib import Path

import click
from tuneyard_api.registry import REPORT_HTML, REPORT_MARKDOWN


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the page of HTML to this file instead.",
)
def command(folder: Path, html: Path | None) -> None:
    """Print the report on the job that published the adapter or model in FOLDER, as Markdown.

    FOLDER is a name in a registry, such as registry/support-answers, or one version in its store.

    \b
    Examples:
      tuneyard report support-answers-workspace/registry/support-answers
      tuneyard report /mnt/adapters/support-answers --html report.html
    """
    kept = folder / (REPORT_MARKDOWN if html is None else REPORT_HTML)
    try:
        content = kept.read_bytes()
    except FileNotFoundError:
        raise click.ClickException(
            f"{kept}: there is no report; try the folder of a published name, <registry>/<name>, that holds version.json"
            " (versions of a former release have none)"
        ) from None
    if html is not None:
        html.write_bytes(content)
    else:
        click.echo(content, nl=False)
