# SPDX-License-Identifier: Apache-2.0
"""Hands the records of a job to a service that trains: as JSONL in the service's columns, in its Data Store."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuneyard_api.data_stores import ENV_DATA_STORE_TOKEN
from tuneyard_api.pod_contract import ResolvedJob
from tuneyard_data.examples import Example
from tuneyard_data.loaded import Loaded

from tuneyard_trainer.fetch.data_store import upload_dataset
from tuneyard_trainer.pod.failures import bad_input

_FILE = "records.jsonl"


def hand_over(job: ResolvedJob, splits: Mapping[str, Loaded], folder: Path) -> str:
    """Writes the splits to `folder` and uploads them; returns the commit in the Data Store.

    Raises:
        StageFailure: BadInput for records that the service can't learn from, or as `upload_dataset`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name, split in splits.items():
        path = folder / name / _FILE
        path.parent.mkdir(parents=True)
        with path.open("w", encoding="utf-8") as file:
            for place, example in enumerate(split.examples(), start=1):
                row = _row_of(example, f"{split.file}: record {place} of the {name} data", job.runtime.name)
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    commit = upload_dataset(
        job.data_store or "", job.uploads_to, folder, os.environ.get(ENV_DATA_STORE_TOKEN) or None
    )
    shutil.rmtree(folder, ignore_errors=True)
    return commit


def _row_of(example: Example, place: str, runtime: str) -> dict[str, Any]:
    """A record in the columns that NeMo Customizer reads."""
    if example.prompt is None:
        raise bad_input(
            f"{place} is plain text, and runtime {runtime} trains by a service that learns answers to prompts; try prompt and"
            " completion, messages, or a runtime that trains in pods"
        )
    asked: Any = list(example.messages) if example.messages is not None else example.prompt
    if example.rejected is not None:
        rejected = example.rejected.reference
        return {"prompt": asked, "chosen_response": example.reference, "rejected_response": rejected}
    if example.messages is not None:
        return {"messages": [*asked, {"role": "assistant", "content": example.reference}]}
    return {"prompt": asked, "completion": example.reference}
