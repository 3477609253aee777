# SPDX-License-Identifier: Apache-2.0
"""What real pods answer to input that can't work: a clear state, condition and sentence each.

All jobs run side by side: a test asks for its own, and the first that does starts them all.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from support.bench import Bench, build_job
from tuneyard_local.storage import bind_folder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def dataset(path: str, claim: str = "bad-data") -> dict[str, Any]:
    return {"training": {"pvc": {"claimName": claim, "path": path}}}


GOOD_DATA = dataset("good.jsonl")
FAILS: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "data-file-missing": ({"dataset": dataset("nowhere.jsonl")}, "DataMissing", ("nowhere.jsonl",)),
    "data-empty": ({"dataset": dataset("empty.jsonl")}, "BadInput", ("empty.jsonl",)),
    "data-malformed": ({"dataset": dataset("malformed.jsonl")}, "BadInput", ("malformed.jsonl:3:",)),
    "data-wrong-columns": ({"dataset": dataset("columns.jsonl")}, "BadInput", ("question", "answer")),
    "data-all-truncated": (
        {"dataset": dataset("long.jsonl"), "training": {"maxSteps": 1, "maxSequenceLength": 16}},
        "BadInput",
        ("16",),
    ),
    "model-missing": (
        {
            "dataset": GOOD_DATA,
            "model": {"pvc": {"claimName": "models", "path": "no-such-model"}},
            "serve": {"disabled": True},
        },
        "ModelMissing",
        ("no-such-model",),
    ),
}
WAITS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "claim-missing": ({"dataset": dataset("good.jsonl", "no-such-claim")}, ("no-such-claim",)),
    "secret-missing": (
        {
            "dataset": GOOD_DATA,
            "model": {"huggingFace": {"repo": "someone/gated", "secretRef": {"name": "no-such-secret"}}},
            "serve": {"disabled": True},
        },
        ("no-such-secret",),
    ),
    "too-many-gpus": (
        {
            "dataset": GOOD_DATA,
            "parallelism": {"gpusPerNode": 16},
            "training": {"globalBatchSize": 16, "maxSteps": 1},
        },
        ("Insufficient nvidia.com/gpu",),
    ),
    "image-missing": (
        {"dataset": GOOD_DATA, "runtime": {"name": "no-image"}},
        ("localhost/tuneyard/nowhere:1",),
    ),
    "runtime-missing": (
        {"dataset": GOOD_DATA, "runtime": {"name": "no-such-runtime"}},
        ("no-such-runtime", "hf-cpu"),
    ),
}


def write_bad_data(folder: Path) -> None:
    record = {"prompt": "2 + 2 =", "completion": " 4"}
    files: dict[str, list[str]] = {
        "good.jsonl": [json.dumps({"prompt": f"{n} + 2 =", "completion": f" {n + 2}"}) for n in range(20)],
        "empty.jsonl": [],
        "malformed.jsonl": [json.dumps(record), json.dumps(record), '{"prompt": "x", "completion": '],
        "columns.jsonl": [json.dumps({"question": "2 + 2", "answer": "4"})],
        "long.jsonl": [json.dumps({"prompt": "word " * 500, "completion": " end"})] * 3,
    }
    for name, lines in files.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)


@pytest.fixture(scope="module")
def started(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """All the jobs, applied at once."""
    folder = tmp_path_factory.mktemp("bad-data")
    for parent in (folder, *list(folder.parents)[:2]):
        parent.chmod(0o755)
    write_bad_data(folder)
    bind_folder(bench.cluster, bench.namespace, "bad-data", folder, read_only=True)
    runtime = json.loads(bench.cluster.kubectl("get", "finetuneruntime", "hf-cpu", "-o", "json").stdout)
    spec = {**runtime["spec"], "image": "localhost/tuneyard/nowhere:1", "imagePullPolicy": "IfNotPresent"}
    bench.cluster.apply(
        {
            "apiVersion": runtime["apiVersion"],
            "kind": runtime["kind"],
            "metadata": {"name": "no-image"},
            "spec": spec,
        }
    )
    bench.apply(*(build_job(name, **changes) for name, (changes, *_) in (FAILS | WAITS).items()))
    return bench


@pytest.mark.parametrize("name", FAILS)
def test_it_ends_in_words(started: Bench, name: str) -> None:
    _, reason, words = FAILS[name]
    status = started.wait_for_state(name, "Failed", 300)
    (summary,) = [each for each in status["conditions"] if each["type"] == "Succeeded"]
    assert (summary["status"], summary["reason"]) == ("False", reason)
    for word in words:
        assert word in status["message"]
    assert len(status["attempts"]) == 1


@pytest.mark.parametrize("name", WAITS)
def test_it_waits_and_says_what_for(started: Bench, name: str) -> None:
    _, words = WAITS[name]

    def says_so(status: dict[str, Any]) -> bool:
        text = json.dumps(status.get("waitingFor") or {}) + status.get("message", "")
        return all(word in text for word in words)

    status = started.wait(name, f"words {words}", says_so, 240)
    assert status["state"] not in {"Failed", "Succeeded"}
    started.cluster.kubectl("-n", started.namespace, "delete", "ftj", name, "--wait=false")


def test_a_claim_that_comes_late_is_found(started: Bench, tmp_path: Path) -> None:
    started.apply(build_job("late-claim", dataset=dataset("good.jsonl", "late-data")))
    started.wait("late-claim", "the claim's name", lambda status: "late-data" in json.dumps(status), 180)
    for parent in (tmp_path, *list(tmp_path.parents)[:3]):
        parent.chmod(0o755)
    write_bad_data(tmp_path)
    bind_folder(started.cluster, started.namespace, "late-data", tmp_path, read_only=True)

    def is_accepted(status: dict[str, Any]) -> bool:
        return any(
            each["type"] == "Accepted" and each["status"] == "True" for each in status.get("conditions", ())
        )

    started.wait("late-claim", "Accepted", is_accepted, 180)
    started.cluster.kubectl("-n", started.namespace, "delete", "ftj", "late-claim", "--wait=false")
