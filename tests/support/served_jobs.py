# SPDX-License-Identifier: Apache-2.0
"""Jobs for the served model of a rendered tree, and what its replicas must answer after them."""

from typing import Any

from tuneyard_api import yaml_io
from tuneyard_local.paths import REPOSITORY
from tuneyard_local.progress import Progress

from support.rendered_trees import MODEL, REPO, RenderedTree

JOB_FILE = REPOSITORY / "examples" / "docstrings-lora.yaml"
JOB_SECONDS = 400
ANSWER_TOKENS = 16
PROGRESS = Progress()


def build_job(tree: RenderedTree, name: str, **changes: Any) -> dict[str, Any]:
    """The ten lines of the README with the model that the tree serves, over in a few steps; `changes` are fields of spec."""
    job: dict[str, Any] = yaml_io.load(JOB_FILE.read_text(), str(JOB_FILE)).value
    job["metadata"]["name"] = name
    job["spec"] |= {
        "model": {"huggingFace": {"repo": REPO}},
        "runtime": {"name": tree.setting.runtime},
        "training": {**job["spec"]["training"], "maxSteps": 12, "learningRate": 0.003},
        "evaluation": {"maxPrompts": 8, "maxNewTokens": ANSWER_TOKENS},
        **changes,
    }
    return job


def build_short_job(tree: RenderedTree, name: str, **changes: Any) -> dict[str, Any]:
    """The same with few held-out records."""
    training = {"pvc": {"claimName": "datasets", "path": "docstrings/train.jsonl"}}
    return build_job(tree, name, dataset={"training": training, "validationFraction": 0.01}, **changes)


def run(tree: RenderedTree, job: dict[str, Any]) -> dict[str, Any]:
    """Apply a job; its status when it has succeeded."""
    tree.bench.apply(job)
    return succeeded(tree, job["metadata"]["name"])


def succeeded(tree: RenderedTree, name: str) -> dict[str, Any]:
    status = tree.bench.wait_for_state(name, "Succeeded", JOB_SECONDS)
    PROGRESS.say(f"{name}: served {status['result']['servedAfterSeconds']} s after it was published")
    return status


def wait_for_message(tree: RenderedTree, name: str, message: str) -> dict[str, Any]:
    """The job's status as soon as it waits for its server with this message."""
    return tree.bench.wait(
        name, message, lambda now: (now.get("waitingFor") or {}).get("message") == message, JOB_SECONDS
    )


def check_answers(tree: RenderedTree, job: str, adapter: str) -> None:
    """Base and tuned model answer on every replica as they did in the job's own evaluation, and not alike."""
    samples = tree.samples(job)
    for replica in tree.replicas():
        answers = {
            side: [replica.answer(model, each["prompt"], ANSWER_TOKENS) for each in samples]
            for side, model in (("base", MODEL), ("tuned", adapter))
        }
        for side, found in answers.items():
            assert found == [each[side] for each in samples], (replica, side)
        assert answers["base"] != answers["tuned"]


def stored(status: dict[str, Any]) -> str:
    """The folder beside the server of the version that a job has published."""
    adapter = status["result"]["adapter"]
    return f"/adapters/.store/{adapter['name']}/{adapter['digest'].removeprefix('sha256:')}"
