# SPDX-License-Identifier: Apache-2.0
"""A real API server says what may be edited once a job has started, and refuses the rest in words."""

import json
import time
from typing import Any

import pytest
from tuneyard_api.yaml_io import dump
from tuneyard_local.cluster import Cluster
from tuneyard_local.installation import install_kinds

pytestmark = pytest.mark.cluster

SPEC: dict[str, Any] = {
    "model": {"pvc": {"claimName": "models"}},
    "dataset": {"training": {"pvc": {"claimName": "data", "path": "t.jsonl"}}},
    "method": "lora",
}
NOW = "2026-11-21T10:00:00Z"


def job(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "answers"}
    return {
        "apiVersion": "tuneyard.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": metadata,
        "spec": SPEC | spec,
    }


@pytest.fixture(scope="module")
def server(control_plane: Cluster) -> Cluster:
    """The API server with everything of manifests/crds."""
    install_kinds(control_plane)
    return control_plane


def create(server: Cluster, text: str, *options: str) -> tuple[int, str]:
    result = server.kubectl("create", "--validate=strict", "-f", "-", *options, stdin=text)
    return result.returncode, result.stderr


STARTED = {"plan": {"digest": "0" * 64, "gpus": 1, "microBatchSize": 1, "gradientAccumulation": 1}}
ENDED = {"ended": NOW}
EDITS_ALLOWED: dict[str, Any] = {
    "suspend": True,
    "budget": {"gpuHours": 2.5},
    "retry": {"maxAttempts": 5, "maxInterruptions": 0},
    "deadlines": {"activeSeconds": 60},
    "ttl": {"afterSuccessSeconds": 0},
    "deletionPolicy": "Delete",
}


def patch(server: Cluster, namespace: str, spec: dict[str, Any], *options: str) -> tuple[int, str]:
    where = ("patch", "ftj", "answers", "-n", namespace, "--type=merge", *options)
    result = server.kubectl(*where, "-p", json.dumps({"spec": spec}))
    return result.returncode, result.stderr


def set_status(server: Cluster, namespace: str, status: dict[str, Any]) -> None:
    where = ("patch", "ftj", "answers", "-n", namespace, "--subresource=status", "--type=merge")
    patched = server.kubectl(*where, "-p", json.dumps({"status": status}))
    assert patched.returncode == 0, patched.stderr


def test_before_the_start_everything_may_change(server: Cluster, namespace: str) -> None:
    assert create(server, dump(job()), "-n", namespace) == (0, "")
    set_status(server, namespace, {"message": "waits for its runtime"})
    assert patch(server, namespace, {"training": {"seed": 7}, "lora": {"rank": 4}})[0] == 0


@pytest.mark.parametrize("status", [STARTED, ENDED], ids=["started", "ended"])
def test_after_the_start_an_edit_is_refused_with_what_was_changed_and_what_may_be(
    server: Cluster, namespace: str, status: dict[str, Any]
) -> None:
    assert create(server, dump(job()), "-n", namespace) == (0, "")
    set_status(server, namespace, status)
    edit = {"training": {"seed": 7}, "lora": {"rank": 4}, "serve": {}, "suspend": True}
    deadline = time.monotonic() + 60
    while patch(server, namespace, edit, "--dry-run=server")[0] == 0:
        assert time.monotonic() < deadline, "the policy does not come into force"
        time.sleep(0.2)
    _, message = patch(server, namespace, edit)
    named = message[message.index("(changed: ") + 10 : message.index(")")]
    assert sorted(named.split(", ")) == ["lora", "serve", "training"]
    assert (
        "only suspend, budget, retry, deadlines, ttl and deletionPolicy may; try a job of another name"
        in message
    )
    assert patch(server, namespace, {"dataset": {"lossOn": "all"}})[0] != 0
    assert patch(server, namespace, EDITS_ALLOWED)[0] == 0
    set_status(server, namespace, {**status, "message": "status is still written"})


def test_a_job_that_never_existed_before_has_nothing_to_compare_with(server: Cluster, namespace: str) -> None:
    assert create(server, dump({**job(), "status": STARTED}), "-n", namespace) == (0, "")
    server.kubectl("delete", "ftj", "answers", "-n", namespace)
    assert create(server, dump(job(method="sft")), "-n", namespace) == (0, "")
