# SPDX-License-Identifier: Apache-2.0
"""The reference pages in Markdown, made from the models, the reasons and the pod contract."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from tuneyard_api import pod_contract as pod
from tuneyard_api.crd import Schema, structural_schema
from tuneyard_api.reasons import REASONS
from tuneyard_api.samples import constraints
from tuneyard_api.survival import CHANGEABLE

_STAGES: Mapping[pod.Stage, tuple[type[BaseModel], str]] = {
    pod.Stage.PREPARE: (pod.PrepareFacts, "Fetches and checks model and data, tokenises and packs; CPU."),
    pod.Stage.TRAIN: (pod.TrainFacts, "Trains with checkpoints, then compares base and tuned model."),
    pod.Stage.PUBLISH: (pod.PublishFacts, "Writes the adapter to the registry; CPU."),
}
_PLACES = (
    ("TUNEYARD_JOB_FILE", pod.JOB_FILE, "The resolved job (`ResolvedJob`), read-only."),
    ("TUNEYARD_WORKSPACE", pod.WORKSPACE_DIR, "The job's claim, shared by its stages."),
    (
        "",
        pod.SOURCES_DIR,
        "Claims of model and data: `model`, `adapter`, `training`, `validation`, `test`, read-only.",
    ),
    ("", pod.MODEL_CACHE_DIR, "The runtime's model cache; written by prepare alone."),
    ("", pod.REGISTRY_DIR, "The adapter registry; in the publish pod alone."),
    ("TUNEYARD_TERMINATION_LOG", pod.TERMINATION_LOG, "Where the StageResult goes."),
    ("TUNEYARD_PORT", str(pod.PROGRESS_PORT), "`GET /progress` (JSON) and `GET /metrics` (Prometheus)."),
    ("TUNEYARD_ATTEMPT", "1, 2, ...", "The attempt of the stage."),
    (
        "TUNEYARD_MICRO_BATCH_SIZE",
        "",
        "Instead of `training.microBatchSize`, at the same global batch; only after a training ran out of memory.",
    ),
    ("HF_TOKEN", "", "Hub token, from `secretRef`; in the prepare pod alone."),
    (
        ", ".join(pod.ENV_S3),
        "",
        "Credentials of S3, from `secretRef`; in the prepare pod alone, the last if it is there.",
    ),
)


def write_object_page(title: str, intro: str, crd: dict[str, Any], *, note: str) -> str:
    """Fields, rules and printed columns of a custom resource."""
    version = crd["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    parts = [
        f"<!-- {note} -->",
        f"# {title}",
        intro,
        "## spec",
        _field_table(schema["properties"]["spec"], "spec"),
    ]
    if "status" in schema["properties"]:
        parts += [
            "## status",
            "Written by the operator alone.",
            _field_table(schema["properties"]["status"], "status"),
        ]
    rules = dict.fromkeys(
        f"- `{path or 'metadata.name'}`: {rule['message']}." for path, rule in _rules(schema, "")
    )
    parts += ["## Rules", "\n".join(rules)]
    if "status" in schema["properties"]:
        changeable = ", ".join(f"`spec.{name}`" for name in CHANGEABLE)
        parts += [
            "## After the start",
            f"From the moment that `status.plan` is there, {changeable} may change, and nothing else of spec.",
        ]
    columns = version["additionalPrinterColumns"]
    rows = [
        (
            column["name"],
            f"`{column['jsonPath']}`",
            column["description"] + (" With `-o wide`." if column.get("priority") else ""),
        )
        for column in columns
    ]
    short = crd["spec"]["names"]["shortNames"][0]
    parts += [f"## Columns of `kubectl get {short}`", _table(("Column", "Field", "Meaning"), rows)]
    return "\n\n".join(parts) + "\n"


def write_reasons_page(*, note: str) -> str:
    """Every reason, its sentence and who can fix it."""
    rows = [
        (f"`{name}`", meaning.sentence, meaning.fixer.value, "yes" if meaning.is_waiting else "")
        for name, meaning in REASONS.items()
    ]
    intro = (
        "What `reason` can be in a condition, an event or `status.waitingFor`. A job that waits goes on by itself"
        " when what it waits for changes."
    )
    table = _table(("Reason", "Meaning", "Who can fix it", "Waits"), rows)
    return f"<!-- {note} -->\n\n# Reasons\n\n{intro}\n\n{table}\n"


def write_pod_contract_page(*, note: str) -> str:
    """What a runtime's image is given and has to give back."""
    stages = [(f"`{stage}`", text, str(pod.GRACE_SECONDS[stage])) for stage, (_, text) in _STAGES.items()]
    exits = sorted((code, kind) for kind, code in pod.EXIT_CODES.items())
    exit_rows = [
        (str(code), f"`{kind}`", REASONS[kind].sentence, pod.RETRIED.get(kind, "")) for code, kind in exits
    ]
    places = [
        (f"`{name}`" if name else "", f"`{place}`" if place else "", text) for name, place, text in _PLACES
    ]
    parts = [
        f"<!-- {note} -->",
        f"# The pod contract, schema version {pod.SCHEMA_VERSION}",
        (
            f"Any image can be a FineTuneRuntime if it keeps this. Its container `{pod.CONTAINER}` is run as"
            f" `{' '.join(pod.COMMAND)} <stage>`. SIGTERM means: checkpoint and leave."
        ),
        "## Stages",
        _table(("Stage", "What it does", "Seconds between SIGTERM and SIGKILL"), stages),
        "## Places",
        _table(("Variable", "Value", "What is there"), places),
        "## Unpublishing",
        (
            f"A FineTuneJob with `deletionPolicy: Delete` is deleted once `{' '.join(pod.UNPUBLISH)} --uid <uid>"
            " <registry>/<adapterName>` has ended well in a pod with the registry. It removes what the job of that uid"
            " published, and nothing else. It may be run again after an interruption. Its termination message is one sentence."
        ),
        "## Exit codes",
        "0 is success.",
        _table(("Exit code", "Failure class", "Meaning", "Retried"), exit_rows),
        "## StageResult",
        (
            f"At most {pod.MAX_RESULT_BYTES} bytes of JSON, in the termination message and in"
            " `<workspace>/results/<stage>.json`. A rerun that finds a Succeeded result of the same plan returns it."
        ),
        _model_table(pod.StageResult),
    ]
    for stage, (facts, _) in _STAGES.items():
        parts += [f"### Facts of {stage}", _model_table(facts)]
    parts += ["## Progress", "Answer of `GET /progress`.", _model_table(pod.Progress)]
    parts += ["## ResolvedJob", "`job.json`: nothing is left to decide.", _model_table(pod.ResolvedJob)]
    return "\n\n".join(parts) + "\n"


def _model_table(model: type[BaseModel]) -> str:
    return _field_table(structural_schema(model), "")


def _field_table(schema: Schema, path: str) -> str:
    return _table(("Field", "Type", "Default", "Meaning"), _field_rows(schema, path))


def _field_rows(schema: Schema, path: str) -> Iterator[tuple[str, ...]]:
    required = schema.get("required", ())
    for name, part in schema.get("properties", {}).items():
        default = part.get("default")
        shown = (
            "required"
            if name in required
            else ""
            if default in (None, {}, [])
            else f"`{json.dumps(default)}`"
        )
        here = f"{path}.{name}" if path else name
        yield f"`{here}`", constraints(part), shown, part.get("description", "")
        yield from _field_rows(part, here)
        if "items" in part:
            yield from _field_rows(part["items"], f"{here}[]")


def _rules(schema: Schema, path: str) -> Iterator[tuple[str, dict[str, str]]]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path + rule.get("fieldPath", ""), rule
    for name, part in schema.get("properties", {}).items():
        yield from _rules(part, f"{path}.{name}".removeprefix("."))
    if "items" in schema:
        yield from _rules(schema["items"], f"{path}[]")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in row) + " |" for row in lines
    )
