# SPDX-License-Identifier: Apache-2.0
"""The operator as a process of its own with the rights of its chart, on a cluster whose kubelets are the test."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml
from tuneyard_api import names
from tuneyard_api.pod_contract import Stage
from tuneyard_api.status import FineTuneJobStatus, WaitingFor
from tuneyard_local.cluster import Cluster
from tuneyard_operator.domain.conditions import api_time

from support.samples import result_text

CHART = Path(__file__).parents[3] / "charts" / "tuneyard-operator"
Found = TypeVar("Found")
PATIENCE = 120.0
"""Seconds for whatever another process does: two cores carry a cluster and the tests beside."""


def until(what: str, look: Callable[[], Found | None], seconds: float = PATIENCE) -> Found:
    """The result of `look`, as soon as it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")


def _rendered(template: str) -> list[dict[str, Any]]:
    text = (CHART / "templates" / template).read_text()
    return list(yaml.safe_load_all(re.sub(r"\{\{.*?\}\}", "operator-under-test", text)))


def _lease_role(namespace: str, account: dict[str, str]) -> list[dict[str, Any]]:
    role, binding = _rendered("role.yaml")
    for body in (role, binding):
        body["metadata"] = {"name": "operator-under-test", "namespace": namespace}
    binding["subjects"] = [{"kind": "ServiceAccount", **account}]
    return [role, binding]


def restricted_kubeconfig(cluster: Cluster, folder: Path, namespaces: tuple[str, ...] = ("default",)) -> Path:
    """A kubeconfig of a service account with the chart's roles and nothing else; `namespaces`: where it may have a lease."""
    [role] = _rendered("clusterrole.yaml")
    role["metadata"] = {"name": "operator-under-test"}
    account = {"name": "operator-under-test", "namespace": "default"}
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
        role,
        *(body for namespace in namespaces for body in _lease_role(namespace, account)),
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "operator-under-test"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "operator-under-test",
            },
            "subjects": [{"kind": "ServiceAccount", **account}],
        },
    )
    token = cluster.kubectl("create", "token", "operator-under-test", "-n", "default").stdout.strip()
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"] = [{**user, "user": {"token": token}} for user in config["users"]]
    path = folder / "operator.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


class OperatorProcess:
    """`tuneyard-operator`, started, killed and started again."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self.kubeconfig, self.log = kubeconfig, log
        self.process: subprocess.Popen[bytes] | None = None
        self._began = 0

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def start(self, *flags: str, wait: bool = True) -> None:
        """Start, and wait until it has seen the cluster."""
        self._began = self.log.stat().st_size if self.log.exists() else 0
        command = [
            sys.executable,
            "-m",
            "tuneyard_operator.main",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            *flags,
        ]
        with self.log.open("ab") as log:
            environment = {"KUBECONFIG": str(self.kubeconfig), "PATH": "/usr/bin:/bin"}
            environment |= {name: value for name, value in os.environ.items() if name == "PYTHONPATH"}
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        if wait:
            until("the operator is ready", lambda: "knows the objects of the cluster" in self.said())

    def said(self) -> str:
        """The log since the last start."""
        return self.log.read_bytes()[self._began :].decode() if self.log.exists() else ""

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def page(self, name: str) -> str:
        """A page of the port for probes and metrics."""
        port = re.findall(r"\('127\.0\.0\.1', (\d+)\)", self.said())[-1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}", timeout=30) as answer:
            return str(answer.read().decode())

    def memory_mib(self) -> float:
        """Peak resident memory."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+)", text)[0]) / 1024


class JobOnCluster:
    """One FineTuneJob; the test plays the kubelet of its pods."""

    def __init__(self, cluster: Cluster, namespace: str, name: str = "a") -> None:
        self.cluster, self.namespace, self.name = cluster, namespace, name

    def apply(self, spec: dict[str, Any]) -> None:
        metadata = {"name": self.name, "namespace": self.namespace}
        body = {"apiVersion": names.API_VERSION, "kind": names.JOB_KIND, "metadata": metadata, "spec": spec}
        self.cluster.apply(body)

    @property
    def status(self) -> FineTuneJobStatus:
        body = self.cluster.get(
            f"/apis/{names.API_VERSION}/namespaces/{self.namespace}/{names.JOB_PLURAL}/{self.name}"
        )
        return FineTuneJobStatus.model_validate((body or {}).get("status") or {})

    def conditions(self) -> dict[str, tuple[str, str]]:
        return {each.type.value: (each.status, each.reason) for each in self.status.conditions}

    def children(self, path: str) -> list[dict[str, Any]]:
        selector = f"?labelSelector={names.LABEL_JOB}={self.name}"
        items: list[dict[str, Any]] = (self.cluster.get(f"{path}{selector}") or {"items": []})["items"]
        return items

    def jobs(self) -> list[str]:
        return sorted(
            job["metadata"]["name"]
            for job in self.children(f"/apis/batch/v1/namespaces/{self.namespace}/jobs")
        )

    def pod(self, stage: Stage, attempt: int = 1) -> str:
        """The pod of an attempt, as soon as it is placed on a fake node."""

        def look() -> str | None:
            for pod in self.children(f"/api/v1/namespaces/{self.namespace}/pods"):
                labels = pod["metadata"]["labels"]
                ours = labels[names.LABEL_STAGE] == stage and labels[names.LABEL_ATTEMPT] == str(attempt)
                if ours and pod["spec"].get("nodeName"):
                    return str(pod["metadata"]["name"])
            return None

        return until(f"a placed pod of {stage} attempt {attempt}", look)

    def set_pod(self, name: str, **status: Any) -> None:
        patch = json.dumps({"status": status})
        answer = self.cluster.kubectl(
            "patch", "pod", name, "-n", self.namespace, "--subresource=status", "--type=merge", "-p", patch
        )
        assert answer.returncode == 0, answer.stderr

    def run_pod(self, name: str) -> None:
        moment = api_time(datetime.now(UTC))
        state = {**_CONTAINER, "ready": True, "state": {"running": {"startedAt": moment}}}
        self.set_pod(
            name, phase="Running", podIP="127.0.0.1", podIPs=[{"ip": "127.0.0.1"}], containerStatuses=[state]
        )

    def end_pod(self, name: str, *, exit_code: int = 0, message: str = "", reason: str = "Completed") -> None:
        ended = {"exitCode": exit_code, "reason": reason, "message": message}
        phase = "Failed" if exit_code else "Succeeded"
        self.set_pod(name, phase=phase, containerStatuses=[{**_CONTAINER, "state": {"terminated": ended}}])

    def succeed(self, stage: Stage, attempt: int = 1) -> None:
        """The stage's pod runs and succeeds."""
        pod = self.pod(stage, attempt)
        # The Job is made before the status is written, and its pod may be placed in between.
        plan = until(f"the plan of {self.name}", lambda: self.status.plan)
        self.end_pod(pod, message=result_text(stage, plan.digest))

    def waits_for(self, reason: str, *words: str) -> WaitingFor:
        """What the job waits for, as soon as it does for this reason and says all of these words."""

        def look() -> WaitingFor | None:
            found = self.status.waiting_for
            is_it = found is not None and found.reason == reason
            return found if is_it and found and all(each in found.message for each in words) else None

        try:
            return until(f"{self.name} to wait: {reason} {' and '.join(words)}", look)
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {self.conditions()}: {self.status.message}") from error

    def told(self, reason: str) -> dict[str, Any]:
        """The Event of this reason, as soon as it is there: it is posted after the status is written."""

        def look() -> dict[str, Any] | None:
            items = (self.cluster.get(f"/api/v1/namespaces/{self.namespace}/events") or {"items": []})[
                "items"
            ]
            about = (each for each in items if each["involvedObject"].get("name") == self.name)
            return next((each for each in about if each["reason"] == reason), None)

        return until(f"an Event {reason} of {self.name}", look)

    def wait_for(self, kind: str, status: str, reason: str | None = None, seconds: float = PATIENCE) -> None:
        """Wait for a condition."""

        def look() -> bool:
            found = self.conditions().get(kind)
            return found is not None and found[0] == status and reason in {None, found[1]}

        try:
            until(f"{kind}={status} {reason or ''}", look, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {self.conditions()}: {self.status.message}") from error


_CONTAINER = {"name": "trainer", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
