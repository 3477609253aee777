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
_GATED = Evaluation(gate=Gate(must_not_regress=MustNotRegress(base=Tolerances(loss=0))))


def _optional(name: str, source: str, unless: str = "") -> str:
    """A value, or null when `unless` was typed; the API server drops a field that is null.

    A tag that left the whole line out would be no YAML where Argo validates a template with words in place of its tags.
    """
    return tag(name, f"v == '{unless}' ? 'null' : {source}")


def _gate() -> str:
    """The gate in flow style; a tag ends at the first two braces, so they are kept apart."""
    field = _GATED.model_dump_json(by_alias=True, exclude_unset=True)
    return f"'{field.replace('}', '} ').replace('{', '{ ')}'"


VALUES: Mapping[str, str] = {
    "model": tag("model", as_json(MODEL)),
    "dataset.training": tag("trainingData", as_json(DATA)),
    "dataset.test": _optional("testData", as_json(DATA)),
    "method": text("method"),
    "runtime.name": text("runtime"),
    "training.epochs": number("epochs"),
    "training.learningRate": number("learningRate"),
    "training.maxSequenceLength": number("maxSequenceLength"),
    "parallelism.gpusPerNode": number("gpus"),
    "evaluation": _optional("gate", _gate(), NO_GATE),
    "publish.adapterName": text("adapter"),
    "serve": _optional("endpoint", as_json("{endpoint: v}")),
}
"""What each value of the spec becomes, by its path."""


def build_manifest() -> str:
    """The manifest with a tag for each input.

    Raises:
        ValueError: a path that the example does not have.
    """
    example = FineTuneJobSpec.model_validate(
        {**_EXAMPLE, "evaluation": _GATED.model_dump(by_alias=True, exclude_unset=True)}
    )
    spec = example.model_dump(mode="json", by_alias=True, exclude_unset=True)
    marks = {f"TAG{place}END": value for place, value in enumerate(VALUES.values())}
    for path, mark in zip(VALUES, marks, strict=True):
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
    marks |= {"NAMETAG": text("job"), "WORKFLOWTAG": "{{workflow.name}}"}
    manifest = dump(document)
    for mark, value in marks.items():
        manifest = manifest.replace(mark, value)
    return manifest
