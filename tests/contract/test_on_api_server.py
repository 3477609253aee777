# SPDX-License-Identifier: Apache-2.0
"""The contract before a real API server: it takes the CRDs, fills in what the models fill in, refuses what it should."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tuneyard_api.evaluation_facts import EvaluationFacts, Scores
from tuneyard_api.job import FineTuneJob
from tuneyard_api.pod_contract import FailureClass, Stage
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_api.status import (
    AdapterStatus,
    Attempt,
    Condition,
    ConditionType,
    FineTuneJobStatus,
    PlanStatus,
    ProgressStatus,
    ResultStatus,
    State,
    WaitingFor,
)
from tuneyard_api.yaml_io import dump, dump_all, load
from tuneyard_local.cluster import Cluster
from tuneyard_local.installation import install_kinds

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
INVALID = sorted(
    path for kind in ("jobs", "runtimes") for path in (ROOT / "tests/invalid" / kind).glob("*.yaml")
)
SPEC: dict[str, Any] = {
    "model": {"pvc": {"claimName": "models"}},
    "dataset": {"training": {"pvc": {"claimName": "data", "path": "t.jsonl"}}},
    "method": "lora",
}
RUNTIME: dict[str, Any] = {"image": "trainer:1", "accelerator": "nvidia", "methods": ["lora"]}
NOW = "2026-11-21T10:00:00Z"


def job(name: str = "answers", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "tuneyard.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": SPEC | spec,
    }


def runtime(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "tuneyard.io/v1alpha1",
        "kind": "FineTuneRuntime",
        "metadata": {"name": name},
        "spec": RUNTIME | spec,
    }


def until(what: str, holds: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def server(control_plane: Cluster) -> Cluster:
    """The API server with everything of manifests/crds."""
    install_kinds(control_plane)
    return control_plane


def create(server: Cluster, text: str, *options: str) -> tuple[int, str]:
    result = server.kubectl("create", "--validate=strict", "-f", "-", *options, stdin=text)
    return result.returncode, result.stderr


def stored(server: Cluster, kind: str, name: str, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.kubectl("get", kind, name, "-o", "json", *options).stdout)
    return found


def test_the_crds_are_taken_without_a_warning(server: Cluster) -> None:
    again = server.kubectl("apply", "--server-side", "--dry-run=server", "-f", str(ROOT / "manifests/crds"))
    assert again.returncode == 0
    assert again.stderr == ""
    for name in ("finetunejobs.tuneyard.io", "finetuneruntimes.tuneyard.io"):
        conditions = {c["type"]: c["status"] for c in stored(server, "crd", name)["status"]["conditions"]}
        assert conditions["NamesAccepted"] == "True"
        assert conditions.get("NonStructuralSchema", "False") == "False"


@pytest.mark.parametrize("path", INVALID, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_invalid_job_or_runtime_is_refused_with_the_words_that_it_states(
    server: Cluster, path: Path
) -> None:
    marker = "# expect-api: "
    text = path.read_text()
    wanted = [line.removeprefix(marker) for line in text.splitlines() if line.startswith(marker)]
    code, message = create(server, text, "--dry-run=server")
    assert (code != 0) == bool(wanted), message
    for words in wanted:
        assert words in message


@pytest.mark.parametrize(
    "name",
    ["sample-finetunejob.yaml", "docstrings-lora.yaml", "two-nodes.yaml", "sample-finetuneruntime.yaml"],
)
def test_the_examples_are_taken(server: Cluster, name: str) -> None:
    assert create(server, (ROOT / "examples" / name).read_text(), "--dry-run=server") == (0, "")


FULL = {
    "lora": {},
    "serve": {},
    "workspace": {"sizeGiB": 5},
    "publish": {"pvc": {"claimName": "r", "path": "a/b"}},
    "scheduling": {"tolerations": [{"key": "a"}, {"operator": "Exists"}], "nodeSelector": {"a.b/c": "d"}},
    "model": {"huggingFace": {"repo": "a/b", "secretRef": {"name": "s"}}},
    "training": {"epochs": 0.5, "learningRate": 2e-4, "globalBatchSize": 6, "microBatchSize": 3},
    "parallelism": {"gpusPerNode": 2},
    "dataset": {
        "training": {"s3": {"bucket": "data", "key": "a b/ü.jsonl", "secretRef": {"name": "s"}}},
        "test": {"http": {"url": "http://files.data.svc:80/t.parquet?v=1", "sha256": "0" * 64}},
    },
}


@pytest.mark.parametrize("spec", [{}, FULL], ids=["minimal", "full"])
def test_the_api_server_fills_in_what_the_models_fill_in(
    server: Cluster, namespace: str, spec: dict[str, Any]
) -> None:
    written = job(**spec)
    assert create(server, dump(written), "-n", namespace) == (0, "")
    read = FineTuneJob.model_validate(written)
    found = stored(server, "ftj", "answers", "-n", namespace)
    assert found["spec"] == read.spec.model_dump(mode="json", exclude_none=True)
    assert FineTuneJob.model_validate(found).spec == read.spec


@pytest.mark.parametrize(("accelerator", "resource"), [("nvidia", "nvidia.com/gpu"), ("none", None)])
def test_a_runtime_is_filled_in_the_same_way(server: Cluster, accelerator: str, resource: str | None) -> None:
    written = runtime(
        f"for-{accelerator}", accelerator=accelerator, defaults={"registry": {"claimName": "r"}}
    )
    applied = server.kubectl("apply", "--validate=strict", "-f", "-", stdin=dump(written))
    assert applied.returncode == 0, applied.stderr
    found = FineTuneRuntime.model_validate(stored(server, "ftr", f"for-{accelerator}"))
    assert found.spec == FineTuneRuntime.model_validate(written).spec
    assert found.spec.accelerator_resource == resource


def test_a_runtime_asks_for_gpus_in_one_way(server: Cluster) -> None:
    both = runtime("both", acceleratorResource="nvidia.com/gpu", deviceClassName="gpu.nvidia.com")
    code, message = create(server, dump(both), "--dry-run=server")
    assert code != 0
    assert "acceleratorResource and deviceClassName exclude each other (got both); try one" in message
    claimed = runtime("claimed", deviceClassName="gpu.nvidia.com")
    assert create(server, dump(claimed), "--dry-run=server") == (0, "")


def test_a_runtime_s_image_needs_a_fixed_tag(server: Cluster) -> None:
    code, message = create(server, dump(runtime("loose", image="trainer:latest")), "--dry-run=server")
    assert code != 0
    assert "spec.image: Invalid value: an image has a fixed tag or a digest (got trainer:latest)" in message


def test_a_runtime_s_cpu_limit_is_at_least_its_request(server: Cluster) -> None:
    tight = runtime("tight", trainResources={"cpu": "2", "cpuLimit": "1999m"})
    code, message = create(server, dump(tight), "--dry-run=server")
    assert code != 0
    assert (
        "spec.trainResources.cpuLimit: Invalid value: cpuLimit is at least cpu (got 1999m and 2)" in message
    )
    fitting = runtime("fitting", trainResources={"cpu": "1500m", "cpuLimit": "1.5"})
    assert create(server, dump(fitting), "--dry-run=server") == (0, "")


def test_numbers_and_words_mean_the_same_to_kubectl_and_to_us(server: Cluster, namespace: str) -> None:
    text = dump(job(model={"pvc": {"claimName": "no"}}, publish={"adapterName": "y"}))
    text += "  training: {learningRate: 2e-4, epochs: 1e1, seed: 0o17}\n"
    assert create(server, text, "-n", namespace) == (0, "")
    found, ours = (
        stored(server, "ftj", "answers", "-n", namespace),
        FineTuneJob.model_validate(load(text).value),
    )
    assert FineTuneJob.model_validate(found).spec == ours.spec
    assert (ours.spec.training.learning_rate, ours.spec.training.seed) == (0.0002, 15)
    assert found["spec"]["model"]["pvc"]["claimName"] == "no"


def test_an_unquoted_no_is_a_string_to_us_and_never_a_silent_false_to_the_api_server(server: Cluster) -> None:
    text = dump(job()).replace("claimName: models", "claimName: no")
    assert FineTuneJob.model_validate(load(text).value).spec.model.pvc is not None
    code, message = create(server, text, "--dry-run=server")
    assert code != 0
    assert 'spec.model.pvc.claimName in body must be of type string: "boolean"' in message


NASTY = {
    f"k{number}": text
    for number, text in enumerate(
        [
            *(
                "no",
                "on",
                "y",
                "N",
                "yes",
                "true",
                "null",
                "~",
                "",
                " ",
                "1",
                "0x1F",
                "0o17",
                "017",
                "1_000",
                "1e3",
            ),
            *(
                ".5",
                "12:30",
                "12:30:45",
                "2026-11-21",
                "2026-11-21T10:00:00Z",
                ".inf",
                "nan",
                "<<",
                "=",
                "---",
                "- a",
            ),
            *(
                "a: b",
                "a #b",
                "*a",
                "&a",
                "!a",
                "|",
                ">",
                "%a",
                "@a",
                "`a`",
                '"',
                "'",
                "\\",
                "{a",
                "{{ x }}",
                "\t",
            ),
            *(
                "a\n",
                "a\nb",
                "a\n\nb\n\n",
                "\na",
                " a\nb",
                "a\r\nb",
                "é",
                "😀",
                "\x85",
                "\u2028",
                "\ufeff",
                "\x1b[0m",
            ),
        ]
    )
}


def test_kubectl_reads_every_string_that_we_write_as_this_string(server: Cluster, namespace: str) -> None:
    written = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nasty"}, "data": NASTY}
    assert create(server, dump(written), "-n", namespace) == (0, "")
    assert stored(server, "configmap", "nasty", "-n", namespace)["data"] == NASTY


def full_status() -> FineTuneJobStatus:
    scores = Scores(loss=1.5, perplexity=4.5, exact_match=0.25, rouge_l=0.5, prompts=64)
    return FineTuneJobStatus(
        state=State.TRAINING,
        observed_generation=1,
        message="trains",
        conditions=(
            Condition(
                type=ConditionType.ACCEPTED,
                status="True",
                reason="Accepted",
                message="ok",
                observed_generation=1,
                last_transition_time=NOW,
            ),
        ),
        plan=PlanStatus(digest="0" * 64, gpus=8, micro_batch_size=4, gradient_accumulation=2),
        progress=ProgressStatus(
            step=120, of=285, percent=42, loss=1.25, tokens_per_second=1234.5, eta="3m20s"
        ),
        waiting_for=WaitingFor(kind="Pod", name="p", reason="Unschedulable", message="0/2 nodes"),
        attempts=(
            Attempt(
                stage=Stage.TRAIN,
                number=1,
                job="answers-train-1",
                started=NOW,
                ended=NOW,
                outcome="Failed",
                failure_class=FailureClass.INTERRUPTED,
                message="m",
            ),
        ),
        result=ResultStatus(
            adapter=AdapterStatus(name="answers", digest="sha256:0", path="/registry/answers"),
            metrics=EvaluationFacts(base=scores, tuned=scores),
            model_name="answers",
            endpoint="http://a",
            dataset_digest="d",
            model_revision="r",
            steps=285,
            seconds=1.5,
        ),
        started=NOW,
        ended=NOW,
    )


def test_all_of_status_is_kept_and_shown_in_columns(server: Cluster, namespace: str) -> None:
    assert create(server, dump(job()), "-n", namespace) == (0, "")
    status = full_status().model_dump(mode="json", exclude_none=True)
    where = ("ftj", "answers", "-n", namespace)
    patched = server.kubectl(
        "patch", *where, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})
    )
    assert patched.returncode == 0, patched.stderr
    found = stored(server, *where)["status"]
    assert found == status
    assert FineTuneJobStatus.model_validate(found) == full_status()
    head, row = server.kubectl("get", *where).stdout.splitlines()
    assert head.split() == ["NAME", "STATE", "PROGRESS", "LOSS", "TOK/S", "ETA", "WAITING", "ADAPTER", "AGE"]
    assert row.split()[:-1] == [
        *("answers", "Training", "120/285", "(42%)", "1.25", "1234.5", "3m20s", "Unschedulable", "answers"),
    ]
    head, row = server.kubectl("get", *where, "-o", "wide").stdout.splitlines()
    wide = row[head.index("METHOD") :].split()
    assert head[head.index("METHOD") :].split() == ["METHOD", "RUNTIME", "GPUS", "SERVED", "AS", "MESSAGE"]
    assert wide == ["lora", "hf", "8", "answers", "trains"]


def test_a_job_must_fit_the_runtime_that_it_names(server: Cluster, namespace: str) -> None:
    for name, methods in (("small", ["lora", "ia3"]), ("large", ["lora", "sft"])):
        server.kubectl("apply", "-f", "-", stdin=dump(runtime(name, methods=methods)))
    wrong = dump(job(method="sft", runtime={"name": "small"}))
    dry = ("-n", namespace, "--dry-run=server")
    words = "spec.method: runtime small has lora, ia3 (got sft); try a runtime that has it"
    until("the policy", lambda: words in create(server, wrong, *dry)[1])
    trusting = dump(
        job(model={"pvc": {"claimName": "m"}, "trustRemoteCode": True}, runtime={"name": "small"})
    )
    code, message = create(server, trusting, *dry)
    assert code != 0
    assert (
        "spec.model.trustRemoteCode: runtime small does not allow Python that comes with a model" in message
    )
    assert create(server, dump(job(method="sft", runtime={"name": "large"})), *dry) == (0, "")
    assert create(server, dump(job(method="sft", runtime={"name": "comes-later"})), *dry) == (0, "")


def test_a_job_whose_spec_stays_is_not_held_up_by_a_runtime_that_changed(
    server: Cluster, namespace: str
) -> None:
    server.kubectl("apply", "-f", "-", stdin=dump(runtime("changing")))
    other = job(name="other", runtime={"name": "changing"})
    assert create(server, dump_all([job(runtime={"name": "changing"})]), "-n", namespace) == (0, "")
    server.kubectl("apply", "-f", "-", stdin=dump(runtime("changing", methods=["sft"])))
    until("the policy", lambda: create(server, dump(other), "-n", namespace, "--dry-run=server")[0] != 0)
    labelled = server.kubectl("label", "ftj", "answers", "team=a", "-n", namespace)
    assert labelled.returncode == 0, labelled.stderr
    edit = (
        "patch",
        "ftj",
        "answers",
        "-n",
        namespace,
        "--type=merge",
        "-p",
        '{"spec": {"training": {"seed": 7}}}',
    )
    edited = server.kubectl(*edit)
    assert "runtime changing has sft (got lora)" in edited.stderr
