# SPDX-License-Identifier: Apache-2.0
"""Jobs on real nodes that suffer faults: each has a script that injects one at the right moment."""

import json
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneyard_api import names
from tuneyard_local import installation
from tuneyard_local.storage import folder_behind

from support.bench import Bench, build_job
from support.faults.containers import trainers
from support.faults.history import Body, History, wait_until

NAMESPACE, RUNTIME = "pod-faults", "hf-cpu-faults"
STEPS, EVERY = 60, 5
"""Steps of a training that is interrupted, and between its checkpoints."""
PATIENCE = 480
"""Seconds until what a script waits for is taken for lost; other trainings run beside it on the same cores."""


def furnish(bench: Bench) -> Bench:
    """A namespace of its own, and a runtime whose jobs end when the adapter is published."""
    installation.make_namespace(bench.cluster, bench.parts, NAMESPACE)
    runtime = installation.build_runtime(bench.parts.trainer, NAMESPACE)
    del runtime["spec"]["servedModels"]
    bench.cluster.apply({**runtime, "metadata": {"name": RUNTIME}})
    return Bench(bench.cluster, bench.parts, NAMESPACE)


def build_patient(name: str, node: str = "node-0", **changes: Any) -> Body:
    """A job with many checkpoints and many attempts, pinned to a node."""
    fields: dict[str, Any] = {
        "runtime": {"name": RUNTIME},
        "training": {"maxSteps": STEPS, "maxSequenceLength": 128, "globalBatchSize": 4},
        "checkpoint": {"everySteps": EVERY, "keep": 3},
        "retry": {"backoffSeconds": 1},
        "evaluation": {"maxPrompts": 1, "maxNewTokens": 2},
        "scheduling": {"nodeSelector": {"kubernetes.io/hostname": node}},
    }
    return build_job(name, **{**fields, **changes})


@dataclass
class Patient:
    """One job, and the faults that it suffered."""

    bench: Bench
    history: History
    name: str
    evidence: dict[str, Any] = field(default_factory=dict)
    _workspace: Path | None = None

    @property
    def status(self) -> dict[str, Any]:
        found = [
            body for body in self.history.present("FineTuneJob") if body["metadata"]["name"] == self.name
        ]
        return dict(found[0].get("status") or {}) if found else {}

    def training(self, attempt: int) -> Body:
        """The pod of a training attempt, as soon as it has written a checkpoint of its own."""
        before = self.steps()

        def look() -> Body | None:
            pods = [pod for pod in self.history.present("Pod") if self._is(pod, attempt)]
            is_new = self.steps()[-1:] > before[-1:]
            return (
                pods[0]
                if pods and is_new and trainers(self.bench.cluster, pods[0]["metadata"]["uid"])
                else None
            )

        return dict(self.wait(f"a checkpoint of training attempt {attempt}", look))

    def _is(self, pod: Body, attempt: int) -> bool:
        labels, phase = pod["metadata"]["labels"], pod["status"].get("phase")
        wanted = (self.name, "train", str(attempt))
        found = (labels[names.LABEL_JOB], labels[names.LABEL_STAGE], labels[names.LABEL_ATTEMPT])
        return found == wanted and phase == "Running"

    def attempt(self, stage: str, number: int) -> dict[str, Any]:
        """An attempt from status, once it is over."""

        def look() -> dict[str, Any] | None:
            for each in self.status.get("attempts", ()):
                if (each["stage"], each["number"]) == (stage, number) and each["outcome"] != "Running":
                    return dict(each)
            return None

        return dict(self.wait(f"the end of {stage} attempt {number}", look))

    def ends(self, state: str) -> dict[str, Any]:
        """The job's status once it is terminal."""
        self.wait("its end", lambda: self.status.get("state") in {"Succeeded", "Failed"})
        status = self.status
        if status["state"] != state:
            raise AssertionError(f"{self.name} has {status['state']}: {status.get('message')}")
        return status

    def workspace(self) -> Path:
        """The folder behind its workspace, as soon as that is bound."""
        if self._workspace is None:
            name = names.workspace_name(self.name)
            self._workspace = folder_behind(self.bench.cluster, NAMESPACE, name)
        return self._workspace or Path("/nowhere")

    def steps(self) -> list[int]:
        """The steps of the job's checkpoints, oldest first."""
        return sorted(int(path.name[5:]) for path in (self.workspace() / "checkpoints").glob("step-*"))

    def disruption(self, attempt: int) -> str:
        """The reason in the pod's DisruptionTarget condition; empty if Kubernetes did not disrupt it."""
        for each in self.history.happened(namespace=NAMESPACE):
            labels = each.body["metadata"].get("labels") or {}
            mine = (labels.get(names.LABEL_JOB), labels.get(names.LABEL_ATTEMPT)) == (self.name, str(attempt))
            if each.kind == "Pod" and mine and labels[names.LABEL_STAGE] == "train":
                for condition in each.body["status"].get("conditions", ()):
                    if condition["type"] == "DisruptionTarget":
                        return str(condition["reason"])
        return ""

    def resumed_from(self) -> int:
        """The step from which the training that succeeded resumed, by its own log."""
        for pod in self.history.present("Pod"):
            labels = pod["metadata"]["labels"]
            ours = (labels[names.LABEL_JOB], labels[names.LABEL_STAGE]) == (self.name, "train")
            if ours and pod["status"]["phase"] == "Succeeded":
                ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
                return int(json.loads(ended["message"])["facts"]["resumedFromStep"])
        raise AssertionError(f"{self.name}: no training has succeeded")

    def wait(self, what: str, look: Callable[[], Any]) -> Any:
        """The result of `look`."""
        try:
            return wait_until(f"{self.name}: {what}", look, PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{error}; status is {json.dumps(self.status)[:3000]}") from error


Script = Callable[[Patient], None]


class Ward:
    """All patients at once: each test waits for its own script."""

    def __init__(self, bench: Bench, history: History) -> None:
        self.bench, self.history = bench, history
        self._pool = ThreadPoolExecutor(16)
        self._futures: dict[str, Future[None]] = {}
        self._patients: dict[str, Patient] = {}

    def admit(self, script: Script, body: Body) -> None:
        """Apply a job and run its script beside the others."""
        name = body["metadata"]["name"]
        patient = self._patients[name] = Patient(self.bench, self.history, name)
        self.bench.apply(body)
        self._futures[name] = self._pool.submit(script, patient)

    def patient(self, name: str) -> Patient:
        """A job whose script has ended; what went wrong in it is raised."""
        self._futures[name].result(3 * PATIENCE)
        return self._patients[name]

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def pause(seconds: float) -> None:
    """Sleep for the duration of a fault; never to wait for a condition."""
    time.sleep(seconds)
