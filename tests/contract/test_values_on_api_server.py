# SPDX-License-Identifier: Apache-2.0
"""Odd values in every field of a job: the laptop and the API server, which gets what kubectl makes of the file, answer alike."""

import copy
import json
from collections.abc import Collection, Iterator
from typing import Any

import pytest
from tuneyard_api import job_rules
from tuneyard_api.crd import Schema, structural_schema
from tuneyard_api.job import FineTuneJob
from tuneyard_api.problems import InputRefused
from tuneyard_api.validate import load_job, refused_nulls
from tuneyard_api.yaml_io import dump, load
from tuneyard_local.cluster import Cluster
from tuneyard_local.installation import install_kinds

Path = tuple[str | int, ...]

PLACE = "PLACE"
VALUES = {
    "integer": ("null", "8.0", "8e0", "2e2", "8.5", "1e30", "-0.0", '"8"', "true", "[]"),
    "number": ("null", "1", "1.0", "1e0", '"1"', "true", "{}"),
    "boolean": ("null", "true", "0", '"true"'),
    "string": ("null", "8", "8.0", "true", "[]"),
    "object": ("null", "[]", '""', "{}"),
    "array": ("null", "[]", "[null]", "{}", '""'),
    "map": ("null", "{}", "{a: null}", "{a: 8}", "[]"),
}
SOURCE = {"pvc": {"claimName": "c", "path": "t.jsonl"}}
FIRST: dict[str, Any] = {
    "model": {"pvc": {"claimName": "c", "path": "p"}, "adapter": {"pvc": {"claimName": "c"}}},
    "dataset": {"training": SOURCE, "validation": SOURCE, "test": SOURCE, "template": {"prompt": "a", "completion": "b"}},
    "method": "lora",
    "lora": {"targetModules": ["q_proj"]},
    "training": {"earlyStopping": {}},
    **{name: {} for name in ("parallelism", "runtime", "workspace", "resources", "checkpoint", "retry")},
    **{name: {} for name in ("budget", "deadlines", "ttl", "evaluation", "serve", "tracking")},
    "scheduling": {"tolerations": [{"key": "a"}], "nodeSelector": {"a": "b"}},
    "publish": {"pvc": {"claimName": "c"}},
}  # fmt: skip
HUB = {"huggingFace": {"repo": "a/b", "path": "t.jsonl", "secretRef": {"name": "s"}}}
S3 = {"s3": {"bucket": "abc", "key": "t.jsonl", "secretRef": {"name": "s"}}}
STORE = {"endpoint": "http://d", "repo": "a/b", "path": "t.jsonl", "secretRef": {"name": "s"}}
DATA_STORE = {"dataStore": STORE}
REGISTRY = {"endpoint": "http://d", "entityStore": "http://e", "secretRef": {"name": "s"}}
HTTP = {"http": {"url": "https://a/t.jsonl", "sha256": "0" * 64}}
OTHERS: tuple[dict[str, Any], ...] = (
    {"model": {"huggingFace": {"repo": "a/b", "secretRef": {"name": "s"}}}},
    {"publish": {"s3": {"bucket": "abc", "secretRef": {"name": "s"}}}},
    *(
        {"dataset": {"training": each, "validation": each, "test": each}}
        for each in (HUB, S3, HTTP, DATA_STORE)
    ),
    {"publish": {"dataStore": REGISTRY}},
    {"evaluation": {"benchmarks": {"names": ["piqa"], "pvc": {"claimName": "c"}}}},
)
PLAIN = {name: part for name, part in FIRST.items() if name != "lora"} | {
    "model": {"pvc": {"claimName": "c", "path": "p"}},
    "dataset": {"training": SOURCE},
}
ALL = {"loss": 1, "perplexity": 1, "exactMatch": 0, "rougeL": 0, "preferenceAccuracy": 0}
GATE = {
    "minimum": {name: ALL[name] for name in ("exactMatch", "rougeL", "preferenceAccuracy")},
    "maximum": {name: ALL[name] for name in ("loss", "perplexity")},
    "mustNotRegress": {"base": ALL, "served": ALL},
}
GATED = {
    "dataset": {"training": SOURCE, "test": SOURCE},
    "publish": {"replace": True, "trial": {}},
    "evaluation": {"gate": GATE},
}
METHODS: tuple[dict[str, Any], ...] = (
    {"method": "dpo", "dpo": {}} | GATED,
    {"method": "pTuning", "pTuning": {}},
)
JOBS = (FIRST, *(FIRST | other for other in OTHERS), *(PLAIN | method for method in METHODS))
METADATA = ("labels", "annotations", "namespace")


def fields(schema: Schema, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every field below `schema` with its type; the first item stands for a list's, `a` for a map's keys."""
    for name, part in schema.get("properties", {}).items():
        is_map = "additionalProperties" in part
        yield (*path, name), "map" if is_map else part["type"]
        yield from fields(part, (*path, name))
        for inner, key in ((part.get("items"), 0), (part.get("additionalProperties"), "a")):
            if inner:
                yield (*path, name, key), inner["type"]
                yield from fields(inner, (*path, name, key))


def with_place(spec: dict[str, Any], path: Path) -> dict[str, Any] | None:
    """`spec` with PLACE at `path`; None where what would hold it is not there."""
    spec = copy.deepcopy(spec)
    part: Any = spec
    for key in path[:-1]:
        try:
            part = part[key]
        except (KeyError, IndexError):
            return None
    if isinstance(path[-1], int) and len(part) <= path[-1]:
        return None
    part[path[-1]] = PLACE
    return spec


def job(name: str, spec: dict[str, Any], **metadata: Any) -> str:
    api = {"apiVersion": "tuneyard.io/v1alpha1", "kind": "FineTuneJob"}
    return dump({**api, "metadata": {"name": name, **metadata}, "spec": spec})


def files() -> dict[str, tuple[str, str]]:
    """A file with each value in each field: name of the job -> (what is tried, text)."""
    found: dict[str, tuple[str, str]] = {}
    for path, kind in fields(structural_schema(FineTuneJob)["properties"]["spec"]):
        spec = next(filter(None, (with_place(each, path) for each in JOBS)), None)
        assert spec is not None, f"no job of this test has a place for {path}"
        for value in VALUES[kind]:
            name = f"j{len(found)}"
            found[name] = f"{'.'.join(map(str, path))}: {value}", job(name, spec).replace(PLACE, value)
    for field in METADATA:
        for value in VALUES["string" if field == "namespace" else "map"]:
            name = f"j{len(found)}"
            found[name] = (
                f"metadata.{field}: {value}",
                job(name, FIRST, **{field: PLACE}).replace(PLACE, value),
            )
    return found


FILES = files()


def refusal(text: str) -> str | None:
    try:
        load_job(text)
    except InputRefused as refused:
        return str(refused)
    return None


def test_the_jobs_without_an_odd_value_are_accepted() -> None:
    for number, spec in enumerate(JOBS):
        assert refusal(job(f"j{number}", spec)) is None


def taken(cluster: Cluster, namespace: str, names: Collection[str], *command: str) -> set[str]:
    """The entries of FILES that the API server accepts by a command of kubectl."""
    install_kinds(cluster)
    options = ("--validate=strict", "--dry-run=server", "-n", namespace, "-o", "name", "-f", "-")
    answer = cluster.kubectl(*command, *options, stdin="---\n".join(FILES[name][1] for name in names))
    return {line.rpartition("/")[2] for line in answer.stdout.splitlines()}


@pytest.mark.cluster
def test_the_laptop_answers_as_the_api_server_does(control_plane: Cluster, namespace: str) -> None:
    found = taken(control_plane, namespace, FILES, "create")
    differing = {
        what: refusal(text) or "accepted, and refused by the API server"
        for name, (what, text) in FILES.items()
        if (refusal(text) is None) != (name in found)
    }
    assert differing == {}
    assert len(found) > len(FILES) / 5


@pytest.mark.cluster
def test_a_job_in_git_has_no_null_that_a_server_side_apply_refuses(
    control_plane: Cluster, namespace: str
) -> None:
    accepted = [name for name, (what, text) in FILES.items() if "null" in what and refusal(text) is None]
    found = taken(control_plane, namespace, accepted, "apply", "--server-side")
    differing = {
        FILES[name][0]: name in found
        for name in accepted
        if (not list(refused_nulls(load(FILES[name][1])))) != (name in found)
    }
    assert differing == {}
    assert 0 < len(found) < len(accepted)


@pytest.mark.cluster
def test_a_client_that_sends_floats_gets_the_rule(control_plane: Cluster, namespace: str) -> None:
    install_kinds(control_plane)
    path = f"/apis/tuneyard.io/v1alpha1/namespaces/{namespace}/finetunejobs?dryRun=All&fieldValidation=Strict"
    written = {
        "apiVersion": "tuneyard.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "floats"},
        "spec": FIRST | {"training": {"maxSteps": 200.0}},
    }
    taken = control_plane.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(written))
    assert taken.returncode == 0, taken.stderr
    written["spec"] = FIRST | {"training": {"globalBatchSize": 8.0}}
    refused = control_plane.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(written))
    assert "expected int, got float64" in refused.stderr
    assert job_rules.BATCH_DIVIDES.sentence in refused.stderr
