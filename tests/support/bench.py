# SPDX-License-Identifier: Apache-2.0
"""A cluster with Tuneyard on it as end-to-end tests use it, and jobs to run there."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tuneyard_local import installation
from tuneyard_local.cluster import Cluster
from tuneyard_local.storage import folder_behind

NAMESPACE = "finetuning"


@dataclass(frozen=True)
class Bench:
    """The cluster with everything that a FineTuneJob needs."""

    cluster: Cluster
    parts: installation.BuiltParts
    namespace: str

    def apply(self, *objects: dict[str, Any]) -> None:
        self.cluster.apply(
            *({**each, "metadata": {"namespace": self.namespace, **each["metadata"]}} for each in objects)
        )

    def get(self, resource: str, name: str) -> dict[str, Any] | None:
        result = self.cluster.kubectl("-n", self.namespace, "get", resource, name, "-o", "json")
        return json.loads(result.stdout) if result.returncode == 0 else None

    def list(self, resource: str, selector: str) -> list[dict[str, Any]]:
        result = self.cluster.kubectl("-n", self.namespace, "get", resource, "-l", selector, "-o", "json")
        assert result.returncode == 0, result.stderr
        items: list[dict[str, Any]] = json.loads(result.stdout)["items"]
        return items

    def status(self, job: str) -> dict[str, Any]:
        status: dict[str, Any] = (self.get("finetunejobs", job) or {}).get("status", {})
        return status

    def wait(
        self, job: str, what: str, is_so: Callable[[dict[str, Any]], bool], seconds: float
    ) -> dict[str, Any]:
        """The job's status as soon as `is_so`; fails with the status and the pods' messages on timeout."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status = self.status(job)
            if is_so(status):
                return status
            if status.get("state") in {"Succeeded", "Failed"}:
                break
            time.sleep(0.5)
        pods = self.cluster.kubectl(
            "-n", self.namespace, "describe", "pods", "-l", f"tuneyard.io/job={job}"
        ).stdout
        pytest.fail(
            f"{job}: waited for {what}, status is {json.dumps(self.status(job), indent=1)}\n{pods[-6000:]}"
        )

    def wait_for_state(self, job: str, state: str, seconds: float) -> dict[str, Any]:
        return self.wait(job, f"state {state}", lambda status: status.get("state") == state, seconds)

    def registry(self) -> Path:
        """The folder behind the claim `adapters`."""
        folder = folder_behind(self.cluster, self.namespace, "adapters")
        assert folder
        return folder


def build_job(name: str, **changes: Any) -> dict[str, Any]:
    """A FineTuneJob of the docstring task that is over in a few steps; `changes` replace fields of spec."""
    return {
        "apiVersion": "tuneyard.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": {
            "model": {"pvc": {"claimName": "models", "path": installation.BASE_MODEL}},
            "dataset": {
                "training": {"pvc": {"claimName": "datasets", "path": "docstrings/train.jsonl"}},
                "validationFraction": 0.01,
            },
            "method": "lora",
            "runtime": {"name": installation.RUNTIME},
            "training": {"maxSteps": 6, "maxSequenceLength": 256},
            "evaluation": {"maxPrompts": 2, "maxNewTokens": 8},
            **changes,
        },
    }
