# SPDX-License-Identifier: Apache-2.0
"""Argo's own workflow controller and executor on a control plane without nodes.

The controller is a process. Pods of workflows are run by `played_pod` as processes with the token of the pod's
ServiceAccount, so that what they may do is what the rendered Role allows; what became of them is written into the
pod's status as a kubelet would.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tuneyard_api.yaml_io import load
from tuneyard_local.cluster import Cluster
from tuneyard_local.parts import part_files, program

Json = dict[str, Any]
T = TypeVar("T")
CONTROLLER = "workflow-controller"
NAMESPACE = "argo"
WORKFLOW = "workflows.argoproj.io/workflow"
ENDED = {"Succeeded", "Failed", "Error"}


def wait_for(what: str, look: Callable[[], T | None], seconds: float = 90) -> T:
    """What `look` returns as soon as it is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


class ArgoWorkflows:
    """The controller and the played pods of one namespace; a context."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self.cluster, self.namespace, self.folder = cluster, namespace, folder
        self.most_at_once = 0
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._seen: set[str] = set()
        self._stop = threading.Event()
        self._kubelet = threading.Thread(target=self._play, daemon=True)
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        definitions = [
            load(p.read_text()).value for p in part_files("argo-workflows").rglob("argoproj.io_*.yaml")
        ]
        settings = {"apiVersion": "v1", "kind": "ConfigMap", "data": {}}
        settings["metadata"] = {"name": "workflow-controller-configmap", "namespace": NAMESPACE}
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        self.cluster.apply(*definitions, space)
        self.cluster.apply(settings)
        wait_for("Argo's kinds", lambda: self.cluster.get("/apis/argoproj.io/v1alpha1/workflows"))
        path = program(CONTROLLER)
        self.cluster.processes.start(
            CONTROLLER,
            [path, f"--kubeconfig={self.cluster.kubeconfig}", f"--namespace={NAMESPACE}"],
            becomes=str(path),
        )
        self._kubelet.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._kubelet.join(30)
        for process in self._running.values():
            process.kill()
        self.cluster.processes.stop(CONTROLLER)
        if self._failure and error is None:
            raise self._failure

    def found(self, path: str, selector: str = "") -> list[Json]:
        answer = self.cluster.get(f"{path}?labelSelector={selector}")
        return answer["items"] if answer else []

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        done = self.cluster.kubectl("-n", self.namespace, *words, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, template: str, **parameters: str) -> str:
        """What the form's button does; the workflow's name."""
        workflow = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"generateName": f"{template}-"},
            "spec": {
                "workflowTemplateRef": {"name": template},
                "arguments": {"parameters": [{"name": k, "value": v} for k, v in parameters.items()]},
            },
        }
        return str(
            json.loads(self.kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(workflow)))[
                "metadata"
            ]["name"]
        )

    def workflow(self, name: str) -> Json:
        path = f"/apis/argoproj.io/v1alpha1/namespaces/{self.namespace}/workflows/{name}"
        return self.cluster.get(path) or {}

    def ended(self, name: str, seconds: float = 90) -> Json:
        """The status of the workflow when it is over."""

        def look() -> Json | None:
            status: Json = self.workflow(name).get("status", {})
            return status if status.get("phase") in ENDED else None

        return wait_for(f"the end of {name}", look, seconds)

    def outputs(self, name: str) -> dict[str, str]:
        """What the workflow gives out: the outputs of its first node."""
        node = self.ended(name)["nodes"][name]
        return {entry["name"]: entry["value"] for entry in node["outputs"]["parameters"]}

    def jobs(self, workflow: str) -> list[Json]:
        path = f"/apis/tuneyard.io/v1alpha1/namespaces/{self.namespace}/finetunejobs"
        return self.found(path, f"{WORKFLOW}={workflow}")

    def one_job(self, workflow: str) -> Json:
        """The FineTuneJob that a workflow makes."""
        return wait_for(f"the job of {workflow}", lambda: self.jobs(workflow))[0]

    def end_job(self, name: str, state: str, message: str, result: Mapping[str, Any] | None = None) -> None:
        """Say of a job what the operator would."""
        status = {"state": state, "message": message, **({"result": result} if result else {})}
        patch = json.dumps({"status": status})
        self.kubectl("patch", "finetunejob", name, "--subresource=status", "--type=merge", "-p", patch)

    def lose_pod(self, workflow: str) -> None:
        """What is left of a pod whose node is gone: nothing."""
        pod = wait_for(
            "a running pod",
            lambda: [p for p in self._pods(workflow) if p["metadata"]["uid"] in self._running],
        )[0]
        self.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
        self._running.pop(pod["metadata"]["uid"]).kill()

    def _pods(self, workflow: str = "") -> list[Json]:
        selector = f"{WORKFLOW}={workflow}" if workflow else WORKFLOW
        return self.found(f"/api/v1/namespaces/{self.namespace}/pods", selector)

    def _play(self) -> None:
        try:
            while not self._stop.wait(0.3):
                for pod in self._pods():
                    uid = pod["metadata"]["uid"]
                    if uid not in self._seen and "deletionTimestamp" not in pod["metadata"]:
                        self._seen.add(uid)
                        self._run(pod)
                    elif (process := self._running.get(uid)) and process.poll() is not None:
                        self._report(pod, process)
                self.most_at_once = max(self.most_at_once, len(self._running))
        except BaseException as error:  # noqa: BLE001  told by __exit__, where somebody listens
            self._failure = error

    def _run(self, pod: Json) -> None:
        metadata = pod["metadata"]
        environment = {
            "PATH": f"{program('argoexec').parent}:{os.environ['PATH']}",
            "KUBECONFIG": str(self._kubeconfig(pod["spec"]["serviceAccountName"])),
        }
        unshare = ["unshare", "--mount", *(["--map-root-user"] if os.getuid() else [])]
        log = (self.folder / f"{metadata['name']}.log").open("w")
        process = subprocess.Popen(
            [*unshare, sys.executable, str(Path(__file__).with_name("played_pod.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
        )  # fmt: skip
        log.close()
        assert process.stdin
        process.stdin.write(json.dumps(pod))
        process.stdin.close()
        self._running[metadata["uid"]] = process
        self._patch(metadata["name"], "Running", {"running": {}})

    def _report(self, pod: Json, process: subprocess.Popen[str]) -> None:
        del self._running[pod["metadata"]["uid"]]
        assert process.stdout
        said = process.stdout.read()
        process.stdout.close()
        result = json.loads(said) if said else {"exitCode": 255, "message": "played_pod itself failed"}
        reason = "Error" if result["exitCode"] else "Completed"
        phase = "Failed" if result["exitCode"] else "Succeeded"
        self._patch(pod["metadata"]["name"], phase, {"terminated": {**result, "reason": reason}})

    def _patch(self, pod: str, phase: str, state: Json) -> None:
        container = {"name": "main", "image": "argoexec", "imageID": "", "ready": False, "restartCount": 0}
        status = {"phase": phase, "containerStatuses": [{**container, "state": state}]}
        done = self.cluster.kubectl(
            "-n",
            self.namespace,
            "patch",
            "pod",
            pod,
            "--subresource=status",
            "-p",
            json.dumps({"status": status}),
        )
        assert done.returncode == 0 or "not found" in done.stderr, done.stderr

    def _kubeconfig(self, account: str) -> Path:
        """How the pods of a ServiceAccount reach the API server."""
        path = self.folder / f"{account}.kubeconfig"
        if not path.exists():
            config = json.loads(
                self.cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json").stdout
            )
            config["users"][0]["user"] = {"token": self.kubectl("create", "token", account).strip()}
            config["contexts"][0]["context"]["namespace"] = self.namespace
            path.write_text(json.dumps(config))
            path.chmod(0o600)
        return path
