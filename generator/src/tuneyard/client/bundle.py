# SPDX-License-Identifier: Apache-2.0
"""Everything that somebody needs who is to find out what is wrong, in one archive without secrets.

No Secret and no ConfigMap is read. Values of environment variables are left out whatever their names are, and what looks
like a credential is blanked in every other text. What can't be read is named in `problems.txt` and holds nothing up.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tuneyard_api import names

from tuneyard.cluster.client import ClusterClient
from tuneyard.findings import InputError

BLANK = "REDACTED"
_LOG_LINES = 2000
_OURS = f"/apis/{names.GROUP}/{names.VERSION}"
_KUEUE = "/apis/kueue.x-k8s.io/v1beta2"
_OPERATOR = urlencode({"labelSelector": f"{names.LABEL_APP}=tuneyard-operator"})
_OF_JOBS = urlencode({"labelSelector": names.LABEL_JOB})
_CLUSTER = {
    "runtimes": f"{_OURS}/{names.RUNTIME_PLURAL}",
    "nodes": "/api/v1/nodes",
    "operator-pods": f"/api/v1/pods?{_OPERATOR}",
    "operator-deployments": f"/apis/apps/v1/deployments?{_OPERATOR}",
    "clusterqueues": f"{_KUEUE}/clusterqueues",
}
_NAMESPACED = {
    "finetunejobs": f"{_OURS}/{{place}}{names.JOB_PLURAL}",
    "jobs": f"/apis/batch/v1/{{place}}jobs?{_OF_JOBS}",
    "pods": f"/api/v1/{{place}}pods?{_OF_JOBS}",
    "events": "/api/v1/{place}events",
    "claims": "/api/v1/{place}persistentvolumeclaims",
    "workloads": f"{_KUEUE}/{{place}}workloads",
    "localqueues": f"{_KUEUE}/{{place}}localqueues",
}
_CREDENTIALS = re.compile(
    r"(?P<user>(?<=://)[^/\s@]+(?=@))"
    r"|\b(?:hf_|nvapi-|ghp_|glpat-|sk-)[\w-]{8,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"
    r"|(?<=Bearer )\S+"
    r"|(?i:(?<=X-Amz-Signature=)|(?<=X-Amz-Credential=)|(?<=X-Amz-Security-Token=))[^&\s\"']+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    re.DOTALL,
)
_NAMED = re.compile(
    r"(?i)(\b[\w.-]*(?:password|passwd|secret|token|api[_-]?key|access[_-]?key)[\w.-]*[\"']?\s*[=:]\s*)([\"']?)[^\s\"',}]+"
)
_LEFT_OUT = {"managedFields", "kubectl.kubernetes.io/last-applied-configuration"}


@dataclass(frozen=True)
class Bundle:
    """What was collected."""

    file: Path
    members: tuple[str, ...]
    """Names of the files in the archive."""
    problems: tuple[str, ...]
    """What could not be read."""


def collect(cluster: ClusterClient, namespace: str | None, file: Path) -> Bundle:
    """Write the archive: of one namespace, or of all where it is None."""
    members: dict[str, str] = {}
    problems: list[str] = []
    place = f"namespaces/{namespace}/" if namespace else ""
    paths = {**_CLUSTER, **{name: path.format(place=place) for name, path in _NAMESPACED.items()}}
    for name, path in paths.items():
        try:
            found = cluster.items(path)
        except InputError as error:
            problems.append(f"{name}: {blanked(str(error))}")
            continue
        members[f"{name}.json"] = json.dumps(without_secrets(found), indent=1, ensure_ascii=False)
        if name == "operator-pods":
            members |= dict(_logs(cluster, found, problems))
    members["versions.json"] = json.dumps(
        {"tuneyard": version("tuneyard"), "server": cluster.get("/version")}
    )
    if problems:
        members["problems.txt"] = "\n".join(problems) + "\n"
    _write(file, members)
    return Bundle(file, tuple(sorted(members)), tuple(problems))


def without_secrets(value: Any) -> Any:
    """A copy of JSON without values of environment variables, without what other tools keep, and with blanked texts."""
    if isinstance(value, Mapping):
        kept = {key: without_secrets(each) for key, each in value.items() if key not in _LEFT_OUT}
        if isinstance(value.get("env"), list):
            kept["env"] = [_without_value(each) for each in value["env"]]
        return kept
    if isinstance(value, list):
        return [without_secrets(each) for each in value]
    return blanked(value) if isinstance(value, str) else value


def blanked(text: str) -> str:
    """The text with everything blanked that looks like a credential."""
    return _CREDENTIALS.sub(BLANK, _NAMED.sub(rf"\1\2{BLANK}", text))


def _without_value(variable: Any) -> Any:
    has_value = isinstance(variable, Mapping) and "value" in variable
    return {**variable, "value": BLANK} if has_value else without_secrets(variable)


def _logs(
    cluster: ClusterClient, pods: list[dict[str, Any]], problems: list[str]
) -> Iterator[tuple[str, str]]:
    """The end of the log of each operator pod, and of the run before its last restart."""
    for pod in pods:
        metadata = pod["metadata"]
        has_restarted = any(
            each.get("restartCount") for each in (pod.get("status") or {}).get("containerStatuses") or ()
        )
        for previous in (False, True) if has_restarted else (False,):
            query = urlencode({"tailLines": _LOG_LINES, "previous": str(previous).lower()})
            path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/log?{query}"
            name = f"operator-logs/{metadata['name']}{'.previous' if previous else ''}.log"
            try:
                # As one text, so that a key of several lines is blanked as a whole.
                yield name, blanked("\n".join(cluster.lines(path)))
            except InputError as error:
                problems.append(f"{name}: {blanked(str(error))}")


def _write(file: Path, members: Mapping[str, str]) -> None:
    with tarfile.open(file, "w:gz") as archive:
        for name, text in sorted(members.items()):
            content = text.encode()
            entry = tarfile.TarInfo(f"tuneyard-support/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
