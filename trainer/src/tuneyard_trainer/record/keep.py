# SPDX-License-Identifier: Apache-2.0
"""Writes the record of a job into the folder of its version in the registry, where it outlives the workspace.

It describes the files of the digest and is no part of them: a reader of the adapter needs none of it.
"""

import json
import shutil
from pathlib import Path

from pydantic import ValidationError
from tuneyard_api.pod_contract import StageResult, TrainFacts
from tuneyard_api.registry import REPORT_HTML, REPORT_MARKDOWN, Version
from tuneyard_data.report import REPORT as DATA_REPORT
from tuneyard_data.report import DataReport
from tuneyard_data.shown_tokens import LEARNED, Learned

from tuneyard_trainer.pod.context import StageContext
from tuneyard_trainer.record.curve import evenly
from tuneyard_trainer.record.report import Findings, render
from tuneyard_trainer.record.samples import read_samples
from tuneyard_trainer.workspace.layout import METRICS, PREPARED, SAMPLES
from tuneyard_trainer.workspace.metrics import read_metrics
from tuneyard_trainer.workspace.prepared import Index, prepared_facts

MAX_METRICS = 10_000
"""Most lines of metrics.jsonl that are kept: about a megabyte."""


def keep_record(folder: Path, context: StageContext, trained: StageResult, version: Version) -> None:
    """Writes metrics, answers, the findings in the data, and the report as HTML and Markdown."""
    workspace = context.workspace
    metrics = read_metrics(workspace / METRICS)
    kept = evenly(metrics, MAX_METRICS)
    _write_lines(folder / METRICS, [json.dumps(line) + "\n" for line in kept])
    samples = read_samples(workspace / SAMPLES)
    _write_lines(folder / Path(SAMPLES).name, samples.kept)
    data = workspace / DATA_REPORT
    if data.is_file():
        shutil.copyfile(data, folder / DATA_REPORT)
    index = Index.load(workspace)
    html, text = render(
        Findings(
            job=context.job,
            plan_digest=context.plan_digest,
            version=version,
            model_revision=index.model_revision,
            evaluation_split=index.evaluation_split,
            prepared=prepared_facts(workspace, context.job),
            data=_data_report(data),
            learned=_learned(workspace / PREPARED / LEARNED),
            trained=TrainFacts.model_validate(trained.facts),
            times=trained.times,
            metrics=metrics,
            metrics_kept=len(kept),
            samples=samples,
        )
    )
    (folder / REPORT_HTML).write_text(html, encoding="utf-8")
    (folder / REPORT_MARKDOWN).write_text(text, encoding="utf-8")


def _write_lines(path: Path, lines: list[str]) -> None:
    if lines:
        path.write_text("".join(lines), encoding="utf-8")


def _learned(path: Path) -> Learned | None:
    """The shown records; None of work that an earlier version prepared."""
    try:
        return Learned.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _data_report(path: Path) -> DataReport | None:
    try:
        return DataReport.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
