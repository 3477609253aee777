# SPDX-License-Identifier: Apache-2.0
"""The manifest of a FineTuneJob with a form's values in it.

It begins as a FineTuneJob of the API's models, so that no field can be misspelt; then tags take the place of its values.
"""

from collections.abc import Mapping
from typing import Any

from tuneyard_api.gate import Gate, MustNotRegress, Tolerances
from tuneyard_api.job import Evaluation, FineTuneJobSpec
from tuneyard_api.names import API_VERSION, JOB_KIND
from tuneyard_api.yaml_io import dump

from tuneyard_workflows.expressions import DATA, MODEL, as_json, number, tag, text

NO_GATE, NOT_WORSE = "none", "notWorseThanBase"
GATES = (NO_GATE, NOT_WORSE)
_EXAMPLE = {
    "model": {"huggingFace": {"repo": "owner/name"}},
    "dataset": {
        "training": {"huggingFace": {"repo": "owner/name", "path": "train.jsonl"}},
        "test": {"huggingFace": {"repo": "owner/name", "path": "test.jsonl"}},
    },
    "method": "lora",
    "runtime": {"name": "hf"},
    "training": {"epochs": 1, "learningRate": 2e-4, "maxSequenceLength": 1024},
    "parallelism": {"gpusPerNode": 1},
    "publish": {"adapterName": "name"},
    "serve": {"endpoint": "http://server:8000"},
}
VALUES: Mapping[str, str] = {
    "model": tag("model", as_json(MODEL)),
    "dataset.training": tag("trainingData", as_json(DATA)),
    "method": text("method"),
    "runtime.name": text("runtime"),
    "training.epochs": number("epochs"),
    "training.learningRate": number("learningRate"),
    "training.maxSequenceLength": number("maxSequenceLength"),
    "parallelism.gpusPerNode": number("gpus"),
    "publish.adapterName": text("adapter"),
}
"""What each value of the spec becomes, by its path."""
_GATED = Evaluation(gate=Gate(must_not_regress=MustNotRegress(base=Tolerances(loss=0))))


def _line(name: str, key: str, source: str, unless: str = "") -> str:
    """A whole line, or an empty one when nothing, or `unless`, was typed."""
    return tag(name, f"v == '{unless}' ? '' : '{key}: ' + {source}")


def _gate() -> str:
    """The gate in flow style; a tag ends at the first two braces, so they are kept apart."""
    field = _GATED.model_dump_json(by_alias=True, exclude_unset=True)
    return f"'{field.replace('}', '} ').replace('{', '{ ')}'"


LINES: Mapping[str, str] = {
    "dataset.test": _line("testData", "test", as_json(DATA)),
    "serve": _line("endpoint", "serve", as_json("{endpoint: v}")),
    "evaluation": _line("gate", "evaluation", _gate(), NO_GATE),
}
"""What is left out when nothing was typed: the whole line, by its path."""


def build_manifest() -> str:
    """The manifest with a tag for each input.

    Raises:
        ValueError: a path that a FineTuneJob does not have.
    """
    example = FineTuneJobSpec.model_validate(
        {**_EXAMPLE, "evaluation": _GATED.model_dump(by_alias=True, exclude_unset=True)}
    )
    spec = example.model_dump(mode="json", by_alias=True, exclude_unset=True)
    marks = {path: f"TAG{place}END" for place, path in enumerate((*VALUES, *LINES))}
    for path, mark in marks.items():
        *above, key = path.split(".")
        parent: Any = spec
        for name in above:
            parent = parent[name]
        if key not in parent:
            raise ValueError(f"{path}: the example has no such field")
        parent[key] = mark
    document = {
        "apiVersion": API_VERSION,
        "kind": JOB_KIND,
        "metadata": {"name": "NAMETAG", "labels": {"workflows.argoproj.io/workflow": "WORKFLOWTAG"}},
        "spec": spec,
    }
    manifest = dump(document).replace("NAMETAG", text("job")).replace("WORKFLOWTAG", "{{workflow.name}}")
    for path, value in VALUES.items():
        manifest = manifest.replace(marks[path], value)
    for path, line in LINES.items():
        manifest = manifest.replace(f"{path.rpartition('.')[2]}: {marks[path]}", line)
    return manifest
