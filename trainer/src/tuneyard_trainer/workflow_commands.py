# SPDX-License-Identifier: Apache-2.0
"""The commands of the pods of workflows. Each writes its results into files of a folder, and its last words when it fails."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

_FILE = click.Path(path_type=Path)
_SHARE = click.FloatRange(0, 1)
_outputs = click.option("--outputs", type=_FILE, required=True, help="Folder for the results, a file each.")
_endpoint = click.option("--endpoint", required=True, help="Base URL of the server, without /v1.")
_model = click.option("--model", required=True, help="Name of the model or adapter at the server.")
_tokens = click.option("--max-new-tokens", type=click.IntRange(1, 4096), default=64, show_default=True)


@click.command()
@click.option("--source", type=_FILE, required=True, help="File or folder with raw records.")
@click.option("--folder", type=_FILE, required=True, help="Folder that gets the curated records.")
@click.option("--place", required=True, help="The folder as a job names it: pvc:<claim>/<path>.")
@click.option("--min-characters", type=click.IntRange(0), default=1, help="Shorter records are left out.")
@click.option(
    "--max-characters", type=click.IntRange(1), default=100_000, help="Longer records are left out."
)
@click.option("--languages", default="", help="Languages to keep, separated by commas; empty: all.")
@click.option("--near-duplicates", type=click.Choice(["drop", "keep"]), default="drop")
@click.option("--personal-data", type=click.Choice(["drop", "keep"]), default="drop")
@click.option(
    "--max-dropped", type=_SHARE, default=0.5, help="Share of records left out above which it fails."
)
@click.option(
    "--test-share", type=click.FloatRange(0, 0.5), default=0.05, help="Share of records to hold out."
)
@_outputs
def curate(source: Path, folder: Path, place: str, outputs: Path, **wishes: Any) -> None:
    """Clean raw records and hold some out."""
    _without_pytorch()
    from tuneyard_data import curation  # noqa: PLC0415  only what is run is imported

    wanted = curation.Wishes(
        min_characters=wishes["min_characters"],
        max_characters=wishes["max_characters"],
        languages=frozenset(filter(None, (word.strip() for word in wishes["languages"].split(",")))),
        drop_near_duplicates=wishes["near_duplicates"] == "drop",
        drop_personal_data=wishes["personal_data"] == "drop",
        max_dropped=wishes["max_dropped"],
        test_share=wishes["test_share"],
    )
    report = _or_fail(lambda: curation.curate(source, folder, wanted))
    print(report.content().decode(), flush=True)
    at = "/".join(filter(None, place.split("/")))
    _write(
        outputs,
        {
            "trainingData": f"{at}/{curation.TRAINING}",
            "testData": f"{at}/{curation.TEST}" if report.test else "",
            "kept": report.kept,
            "dropped": report.read - report.kept,
            "digest": report.digests[curation.TRAINING],
            "report": report.model_dump_json(by_alias=True),
        },
    )


@click.command("evaluate-endpoint")
@_endpoint
@_model
@click.option("--source", type=_FILE, required=True, help="File with records that have prompts.")
@click.option("--max-prompts", type=click.IntRange(1, 10_000), default=64, show_default=True)
@_tokens
@click.option("--min-rouge-l", type=_SHARE, default=0.0, help="Least mean ROUGE-L that is good enough.")
@_outputs
def evaluate_endpoint(
    endpoint: str,
    model: str,
    source: Path,
    outputs: Path,
    *,
    max_prompts: int,
    max_new_tokens: int,
    min_rouge_l: float,
) -> None:
    """Measure the answers of a served model."""
    _without_pytorch()
    from tuneyard_trainer.stages import ask as asking  # noqa: PLC0415

    asked = asking.Endpoint(endpoint, model, max_new_tokens)
    scores = _or_fail(lambda: asking.evaluate(asked, asking.read_prompts(source, max_prompts)))
    print(scores.content(), flush=True)
    _write(outputs, {"metrics": scores.content(), "rougeL": scores.rouge_l, "exactMatch": scores.exact_match})
    if scores.rouge_l < min_rouge_l:
        raise click.ClickException(
            f"rougeL is {scores.rouge_l:.4g}, and at least {min_rouge_l:.4g} was asked for"
        )


@click.command()
@_endpoint
@_model
@click.option("--prompt", required=True, help="Text that the model continues.")
@_tokens
@click.option(
    "--patience", type=click.FloatRange(0, 86_400), default=0.0, help="Seconds until the server must answer."
)
@_outputs
def ask(
    endpoint: str, model: str, prompt: str, outputs: Path, *, max_new_tokens: int, patience: float
) -> None:
    """Ask a served model."""
    from tuneyard_trainer.stages import ask as asking  # noqa: PLC0415

    answer = _or_fail(lambda: asking.Endpoint(endpoint, model, max_new_tokens, patience).complete(prompt))
    print(answer, flush=True)
    _write(outputs, {"answer": answer})


@click.command()
@click.option("--registry", type=_FILE, required=True, help="Folder of the registry.")
@click.option("--candidate", required=True, help="Name of what is published.")
@click.option("--name", required=True, help="Name that is to stand for it too.")
@click.option("--replace", type=click.Choice(["yes", "no"]), default="no", help="Move a name that is taken.")
@_outputs
def promote(registry: Path, candidate: str, name: str, replace: str, outputs: Path) -> None:
    """Give a published adapter or model another name."""
    from tuneyard_trainer.stages.promote import promote as run  # noqa: PLC0415

    version = _or_fail(lambda: run(registry, candidate, name, replace=replace == "yes"))
    print(f"{name} stands for {version.digest}, as {candidate} does", flush=True)
    _write(outputs, {"modelName": name, "digest": version.digest})


def _without_pytorch() -> None:
    """Keeps transformers from importing PyTorch where it is found: 6 s and 600 MB more (5.23)."""
    from tuneyard_data.pretrained import hide_pytorch  # noqa: PLC0415

    hide_pytorch()


def _write(folder: Path, results: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in results.items():
        (folder / name).write_text(str(value), encoding="utf-8")


def _or_fail(work: Callable[[], Any]) -> Any:
    """The result of the work; what went wrong becomes the last words of the pod."""
    from tuneyard_data.refused import DataRefused  # noqa: PLC0415

    from tuneyard_trainer.pod.failures import StageFailure  # noqa: PLC0415

    try:
        return work()
    except (DataRefused, StageFailure, OSError) as error:
        raise click.ClickException(str(error)) from error


COMMANDS = (curate, evaluate_endpoint, ask, promote)
