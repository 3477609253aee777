# SPDX-License-Identifier: Apache-2.0
"""The verbs on FineTuneJobs, as one synchronous client."""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from tuneyard_api import names
from tuneyard_api.pod_contract import CONTAINER, Stage

from tuneyard.client.bundle import Bundle, collect
from tuneyard.client.comparing import Comparison, compare
from tuneyard.client.fetching import Fetched, fetch
from tuneyard.client.job import Job
from tuneyard.client.saving import Restored, Saved, restore, save
from tuneyard.client.submitting import GROUP_VERSION, Forms, Parameter, Submitted
from tuneyard.client.usage import Usage, usage_of
from tuneyard.client.why import Why, explain
from tuneyard.cluster.client import ClusterClient
from tuneyard.findings import Finding, InputError, did_you_mean

_API = f"/apis/{names.GROUP}/{names.VERSION}"
_WORKLOADS = "/apis/kueue.x-k8s.io/v1beta2/namespaces"
Json = dict[str, Any]
Jsons = list[Json]


def _wrong(problem: str, hint: str | None = None) -> InputError:
    return InputError([Finding("job", problem, hint=hint)])


class Client:
    """FineTuneJobs of one namespace of one cluster.

    Raises:
        InputError: from every method, when there is no cluster, no such job, or no right; its text says what to try.
    """

    def __init__(
        self,
        namespace: str | None = None,
        *,
        context: str | None = None,
        kubeconfig: Path | None = None,
    ) -> None:
        """Connects as kubectl does: KUBECONFIG or ~/.kube/config, its current context, and the context's namespace."""
        self._cluster = ClusterClient(kubeconfig, context)
        self.namespace = namespace or self._cluster.namespace

    def list(self, *, all_namespaces: bool = False) -> list[Job]:
        """The jobs of the namespace, or of all, by namespace and name."""
        path = f"{_API}/{names.JOB_PLURAL}" if all_namespaces else self._jobs
        bodies = self._cluster.items(path)
        if not bodies:
            self._expect_jobs()
        return sorted((Job.of(body) for body in bodies), key=lambda job: (job.namespace, job.name))

    def get(self, name: str) -> Job:
        """One job; `other/name` is one of another namespace."""
        namespace, _, name = name.rpartition("/")
        if namespace and namespace != self.namespace:
            return self._of(namespace).get(name)
        body = self._cluster.get(f"{self._jobs}/{name}")
        if body is None:
            raise self._missing(name)
        return Job.of(body)

    def follow(self, name: str, *, every: float = 5.0) -> Iterator[Job]:
        """The job now and after each change of its status, asked for every so many seconds, until it has ended."""
        job = self.get(name)
        yield job
        while not job.has_ended:
            time.sleep(every)
            former, job = job, self.get(name)
            if job.status != former.status:
                yield job

    def events(self, job: Job) -> Jsons:
        """Events about a job, its Jobs and its pods, oldest first."""
        mine = {job.name, *(attempt.job for attempt in job.status.attempts)}
        mine |= {pod["metadata"]["name"] for pod in self._pods(job)}
        found = self._cluster.items(f"/api/v1/namespaces/{job.namespace}/events")
        about = [event for event in found if event.get("involvedObject", {}).get("name") in mine]
        return sorted(
            about, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or "")
        )

    def why(self, name: str) -> Why:
        """Why a job waits or fails, in one sentence, and what to try."""
        job = self.get(name)
        query = urlencode({"fieldSelector": "type=Warning"})
        warnings = self._cluster.items(f"/api/v1/namespaces/{job.namespace}/events?{query}")
        return explain(job, self._pods(job), warnings, self._workload(job), datetime.now(UTC))

    def logs(
        self,
        name: str,
        *,
        stage: Stage | None = None,
        attempt: int | None = None,
        follow: bool = False,
        tail: int | None = None,
    ) -> Iterator[str]:
        """The lines of the pod that matters: of the running attempt, else of the last one; `stage` and `attempt` choose another.

        With several pods it is the first one, which reports the progress. Of an attempt whose pods are gone, it is the end
        of the log that status keeps.
        """
        job = self.get(name)
        attempts = [
            each
            for each in job.status.attempts
            if stage in (None, each.stage) and attempt in (None, each.number)
        ]
        running = [each for each in attempts if each.outcome == "Running"]
        if not attempts:
            what = " ".join(
                ["no attempt", *([str(attempt)] if attempt else []), *([f"of {stage}"] if stage else [])]
            )
            what = what if stage or attempt else "no pod yet"
            raise _wrong(f"FineTuneJob {job.name} has {what}", f"kubectl tuneyard why {job.name}")
        chosen = (running or attempts)[-1]
        wanted = {names.LABEL_STAGE: chosen.stage.value, names.LABEL_ATTEMPT: str(chosen.number)}
        pods = [pod for pod in self._pods(job) if wanted.items() <= pod["metadata"].get("labels", {}).items()]
        if not pods and chosen.last_lines:
            kept = chosen.last_lines.splitlines()
            return iter(kept if tail is None else kept[len(kept) - min(tail, len(kept)) :])
        if not pods:
            said = f"; it said: {chosen.message}" if chosen.message else ""
            raise _wrong(
                f"the pods of {chosen.job} are gone or not made yet{said}",
                f"kubectl tuneyard why {job.name}",
            )
        pod = min(pods, key=lambda pod: str(pod["metadata"]["name"]))
        if not (pod.get("status") or {}).get("containerStatuses"):
            raise _wrong(
                f"pod {pod['metadata']['name']} has not started, so it has no log",
                f"kubectl tuneyard why {job.name}",
            )
        options: dict[str, Any] = {"container": CONTAINER}
        options |= {"follow": "true"} if follow else {}
        options |= {"tailLines": tail} if tail is not None else {}
        path = f"/api/v1/namespaces/{job.namespace}/pods/{pod['metadata']['name']}/log"
        return self._cluster.lines(f"{path}?{urlencode(options)}")

    def suspend(self, name: str) -> Job:
        """Let a job write a checkpoint and give its GPUs back."""
        return self._set_suspend(name, suspend=True)

    def resume(self, name: str) -> Job:
        """Let a suspended job go on from its checkpoint."""
        return self._set_suspend(name, suspend=False)

    def fetch(self, name: str, folder: Path, *, image: str | None = None) -> Fetched:
        """Copy what a job published into a folder: the adapter or model, metrics, samples and report.

        A pod of the runtime's image (or of `image`) mounts the registry's claim to read, and is deleted afterwards.
        """
        return fetch(self._cluster, self.get(name), folder, image=image)

    def form(self, template: str) -> tuple[Parameter, ...]:
        """The parameters of a WorkflowTemplate of the namespace."""
        return self.forms.form(template)

    def submit(
        self, template: str, parameters: Mapping[str, str], *, name: str | None = None, dry_run: bool = False
    ) -> Submitted:
        """Create a Workflow from a WorkflowTemplate; `name` absent: the template's with five characters behind it.

        With `dry_run` only the parameters are checked. InputError says all that is wrong with them.
        """
        return self.forms.submit(template, parameters, name=name, dry_run=dry_run)

    def compare(self, left: str, right: str) -> Comparison:
        """Two jobs side by side; `other/name` is one of another namespace."""
        return compare(self.get(left), self.get(right))

    def top(self, *, all_namespaces: bool = False) -> Usage:
        """Who trains now, and GPU hours by namespace and by who asked."""
        return usage_of(self.list(all_namespaces=all_namespaces))

    def support_bundle(self, file: Path, *, all_namespaces: bool = False) -> Bundle:
        """Write an archive with what helps to find out what is wrong, without secrets."""
        return collect(self._cluster, None if all_namespaces else self.namespace, file)

    def backup(self, file: Path, *, all_namespaces: bool = False) -> Saved:
        """Write the jobs with their status, and all runtimes, to a file."""
        return save(self._cluster, None if all_namespaces else self.namespace, file)

    def restore(self, file: Path) -> Restored:
        """Make again what a file of `backup` has and the cluster has not; jobs that had ended stay ended."""
        return restore(self._cluster, file)

    @property
    def _jobs(self) -> str:
        return f"{_API}/namespaces/{self.namespace}/{names.JOB_PLURAL}"

    @property
    def forms(self) -> Forms:
        """The forms of Argo Workflows in the namespace, by the rights of the kubeconfig."""
        return Forms(_ClusterForms(self._cluster, self.namespace))

    def _of(self, namespace: str) -> Self:
        other = object.__new__(type(self))
        other._cluster, other.namespace = self._cluster, namespace
        return other

    def _set_suspend(self, name: str, *, suspend: bool) -> Job:
        job = self.get(name)
        if job.has_ended:
            raise _wrong(f"FineTuneJob {job.name} has ended ({job.status.state}): nothing of it runs")
        path = f"{_API}/namespaces/{job.namespace}/{names.JOB_PLURAL}/{job.name}"
        return Job.of(self._cluster.merge(path, {"spec": {"suspend": suspend}}))

    def _pods(self, job: Job) -> Jsons:
        query = urlencode({"labelSelector": f"{names.LABEL_JOB}={job.name}"})
        return self._cluster.items(f"/api/v1/namespaces/{job.namespace}/pods?{query}")

    def _workload(self, job: Job) -> Json | None:
        waiting = job.status.waiting_for
        if waiting is None or waiting.kind != "Workload":
            return None
        found = self._cluster.get(f"{_WORKLOADS}/{job.namespace}/workloads/{waiting.name}")
        return dict(found) if found is not None else None

    def _expect_jobs(self) -> None:
        if self._cluster.get(_API) is None:
            raise _wrong(
                f"{self._cluster.server} knows no FineTuneJobs: Tuneyard's CRDs are not installed",
                "another --context, or manifests/crds",
            )

    def _missing(self, name: str) -> InputError:
        there = [job.name for job in self.list()]
        hint = did_you_mean(name, there) or "kubectl tuneyard list -A"
        return _wrong(f"there is no FineTuneJob {name} in namespace {self.namespace}", hint)


class _ClusterForms:
    """WorkflowTemplates and Workflows at the API server."""

    def __init__(self, cluster: ClusterClient, namespace: str) -> None:
        self._cluster, self.namespace = cluster, namespace
        self._path = f"/apis/{GROUP_VERSION}/namespaces/{namespace}"

    def template(self, name: str) -> Json | None:
        found = self._cluster.get(f"{self._path}/workflowtemplates/{name}")
        return None if found is None else dict(found)

    def templates(self) -> Jsons:
        return self._cluster.items(f"{self._path}/workflowtemplates")

    def create(self, workflow: Mapping[str, Any]) -> Json:
        return self._cluster.create(f"{self._path}/workflows", dict(workflow))
