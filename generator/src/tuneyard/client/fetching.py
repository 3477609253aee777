# SPDX-License-Identifier: Apache-2.0
"""Copies what a job published out of the cluster: through a pod that reads the registry and lives shortly.

The pod's container packs the version's folder, `kubectl exec` carries it, and the digest in status is compared with
what has arrived.
"""

import json
import shutil
import subprocess
import tarfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tuneyard_api import names
from tuneyard_api.job import FineTuneJob
from tuneyard_api.places import S3Prefix, S3Registry
from tuneyard_api.pod_contract import CA_FILE, CA_FOLDER, CA_VARIABLES, CONTAINER, ENV_S3, REGISTRY_DIR
from tuneyard_api.pod_security import CONTAINER_SECURITY, POD_SECURITY
from tuneyard_api.refusals import registry_of
from tuneyard_api.registry import MARKS, published_digest, read_version, version_path
from tuneyard_api.runtime import FineTuneRuntime

from tuneyard.client.job import Job
from tuneyard.cluster.client import ClusterClient
from tuneyard.findings import Finding, InputError

_LIVES_SECONDS = 900
_START_SECONDS = 120
_LOOK_EVERY = 1.0
_PACK = (
    "import sys,tarfile; archive=tarfile.open(fileobj=sys.stdout.buffer, mode='w|');"
    " archive.add(sys.argv[1], arcname='.'); archive.close()"
)
"""Program in the pod: packs a folder to standard output. Images need no tar for it."""
Json = dict[str, Any]


@dataclass(frozen=True)
class Fetched:
    """What has been copied."""

    folder: Path
    files: tuple[str, ...]
    """Paths below the folder."""
    digest: str
    """Digest of the published files; what has arrived has the same."""
    curl: str
    """A command that asks the endpoint; empty where the job is served nowhere."""


def _wrong(problem: str, hint: str | None = None) -> InputError:
    return InputError([Finding("fetch", problem, hint=hint)])


def fetch(cluster: ClusterClient, job: Job, folder: Path, *, image: str | None) -> Fetched:
    """Copy the version that the job published into `folder`, which must be empty or not there.

    Raises:
        InputError: nothing is published, it is in a Data Store, the pod does not start, or something else arrives.
    """
    result, plan = job.status.result, job.status.plan
    if result is None or result.adapter is None or plan is None:
        raise _wrong(f"FineTuneJob {job.name} has published nothing", f"kubectl tuneyard why {job.name}")
    name, digest = result.adapter.name, result.adapter.digest
    if plan.adapter_path is None or result.adapter.path.startswith("hf://"):
        raise _wrong(
            f"it is in a Data Store, at {result.adapter.path}", "the store's own client, as for a hub"
        )
    if folder.exists() and any(folder.iterdir()):
        raise _wrong(f"{folder} is not empty", "--to with a new folder")
    pack: Sequence[str]
    if plan.registry_claim is None:
        runtime = _runtime_of(cluster, job)
        place = _place_in_s3(job, runtime, plan.adapter_path.removesuffix(f"/{name}"))
        body = build_s3_reader(job, runtime, place, image or runtime.spec.image)
        where = place.model_dump_json(include=set(S3Prefix.model_fields), exclude_none=True, by_alias=True)
        pack = ("tuneyard-trainer", "pack", where, name, digest)
    else:
        inside = str(PurePosixPath(plan.adapter_path).parent / version_path(name, digest))
        body = build_reader(job, plan.registry_claim, image or _runtime_of(cluster, job).spec.image)
        pack = ("python3", "-c", _PACK, inside)
    with _running(cluster, body) as pod:
        _copy(cluster, pod, pack, folder)
    arrived = published_digest(folder, read_version(name, folder).files)
    if arrived != digest:
        raise _wrong(f"what has arrived is {arrived} and not {digest}, which was published")
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return Fetched(folder, tuple(files), digest, curl_of(job))


def curl_of(job: Job) -> str:
    """A command that asks the job's endpoint for one answer of its adapter."""
    result = job.status.result
    if result is None or result.endpoint is None or result.model_name is None:
        return ""
    asked = {"model": result.model_name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64}
    return f"curl -s {result.endpoint}/v1/chat/completions -H 'Content-Type: application/json' -d '{json.dumps(asked)}'"


def build_reader(job: Job, claim: str, image: str) -> Json:
    """The pod that mounts a registry on a claim, to read."""
    pod = _build_pod(job, image)
    pod["spec"]["volumes"] = [{"name": "registry", "persistentVolumeClaim": {"claimName": claim}}]
    mount = {"name": "registry", "mountPath": REGISTRY_DIR, "readOnly": True}
    pod["spec"]["containers"][0]["volumeMounts"] = [mount]
    return pod


def build_s3_reader(job: Job, runtime: FineTuneRuntime, place: S3Registry, image: str) -> Json:
    """The pod that reads a registry in S3: credentials, proxy and authorities are those of the publish pod."""
    pod, spec = _build_pod(job, image), runtime.spec
    container = pod["spec"]["containers"][0]
    env: dict[str, Json] = {}
    if spec.ca_bundle is not None:
        env |= {name: {"value": CA_FILE} for name in CA_VARIABLES}
        source = {
            "name": spec.ca_bundle.config_map_name,
            "items": [{"key": spec.ca_bundle.key, "path": PurePosixPath(CA_FILE).name}],
        }
        pod["spec"]["volumes"] = [{"name": "ca", "configMap": source}]
        container["volumeMounts"] = [{"name": "ca", "mountPath": CA_FOLDER, "readOnly": True}]
    env |= {variable.name: {"value": variable.value} for variable in spec.env}
    for name in ENV_S3:
        key = {"name": place.secret_ref.name, "key": name, "optional": name == ENV_S3[-1]}
        env[name] = {"valueFrom": {"secretKeyRef": key}}
    container["env"] = [{"name": name, **value} for name, value in env.items()]
    return pod


def _build_pod(job: Job, image: str) -> Json:
    """A pod that does nothing, and ends by itself when nobody deletes it."""
    container = {
        "name": CONTAINER,
        "image": image,
        "command": ["sleep", str(_LIVES_SECONDS)],
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"cpu": "1", "memory": "256Mi"},
        },
        "securityContext": CONTAINER_SECURITY,
    }
    labels = {names.LABEL_APP: "tuneyard", names.LABEL_COMPONENT: "fetch", names.LABEL_INSTANCE: job.name}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{job.name}-fetch-{uuid.uuid4().hex[:6]}",
            "namespace": job.namespace,
            "labels": labels,
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _LIVES_SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": POD_SECURITY,
            "containers": [container],
        },
    }


def _place_in_s3(job: Job, runtime: FineTuneRuntime, published: str) -> S3Registry:
    """The registry that the job names, or its runtime's: with the address and the Secret, which status does not have."""
    metadata = {"name": job.name, "namespace": job.namespace, "uid": job.uid}
    asked = FineTuneJob.model_validate({"metadata": metadata, "spec": job.spec})
    place = registry_of(asked, runtime)
    if not isinstance(place, S3Registry) or str(place) != published:
        raise _wrong(
            f"it is at {published}, and runtime {runtime.metadata.name} publishes to {place} by now",
            "the store's own client",
        )
    return place


def _runtime_of(cluster: ClusterClient, job: Job) -> FineTuneRuntime:
    name = str((job.spec.get("runtime") or {}).get("name"))
    body = cluster.get(f"/apis/{names.GROUP}/{names.VERSION}/{names.RUNTIME_PLURAL}/{name}")
    if body is None:
        raise _wrong(f"FineTuneRuntime {name} is gone, so its image is not known", "--image")
    return FineTuneRuntime.model_validate({"metadata": {"name": name}, "spec": body["spec"]})


@contextmanager
def _running(cluster: ClusterClient, body: Json) -> Iterator[Json]:
    """The pod while it runs; it is deleted at the end, whatever happens."""
    pods = f"/api/v1/namespaces/{body['metadata']['namespace']}/pods"
    path = f"{pods}/{body['metadata']['name']}"
    cluster.create(pods, body)
    try:
        until = time.monotonic() + _START_SECONDS
        pod = cluster.get(path)
        while pod is not None and (pod.get("status") or {}).get("phase") in {None, "", "Pending"}:
            if time.monotonic() > until:
                raise _wrong(f"pod {body['metadata']['name']} does not start: {_why_pending(pod)}", "--image")
            time.sleep(_LOOK_EVERY)
            pod = cluster.get(path)
        if pod is None or pod["status"]["phase"] != "Running":
            raise _wrong(f"pod {body['metadata']['name']} has ended before anything was copied")
        yield pod
    finally:
        cluster.delete(path)


def _why_pending(pod: Json) -> str:
    for container in pod["status"].get("containerStatuses", ()):
        waiting = container["state"].get("waiting")
        if waiting:
            return f"{waiting.get('reason')}: {waiting.get('message', '')}"
    unmet = [each for each in pod["status"].get("conditions", ()) if each["status"] != "True"]
    return str(unmet[0].get("message") or unmet[0]["type"]) if unmet else "nothing says why"


def _copy(cluster: ClusterClient, pod: Json, pack: Sequence[str], folder: Path) -> None:
    if shutil.which("kubectl") is None:
        raise _wrong("kubectl, which carries the files, is not on the PATH")
    where = ("-n", pod["metadata"]["namespace"], pod["metadata"]["name"], "-c", CONTAINER)
    command = ["kubectl", *cluster.kubectl_flags, "exec", *where, "--", *pack]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101  it is a pipe
        assert process.stderr is not None  # noqa: S101  it is a pipe
        problem = ""
        try:
            _unpack(process.stdout, folder)
        except (tarfile.TarError, EOFError) as error:
            problem = str(error)
        said = process.stderr.read().decode(errors="replace").strip()
    if process.returncode or problem:
        raise _wrong(f"kubectl exec: {said or problem}", "the right to create pods/exec")


def _unpack(stream: IO[bytes], folder: Path) -> None:
    """Writes regular files alone, and none outside the folder; marks of publishers are the registry's own."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            content = archive.extractfile(member) if member.isfile() else None
            if content is None or path.is_absolute() or ".." in path.parts or MARKS in path.parts:
                continue
            target = folder.joinpath(*path.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                shutil.copyfileobj(content, file)
