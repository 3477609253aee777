# SPDX-License-Identifier: Apache-2.0
"""Stages that run the trainer image in a pod of their own, under the restricted pod security profile."""

import json
from collections.abc import Mapping, Sequence

from tuneyard_api.pod_security import CONTAINER_SECURITY

from tuneyard_workflows.form import Field, Json, Offer, inputs

OUTPUT_FOLDER = "/tmp/outputs"  # noqa: S108  in an emptyDir of the pod
_TMP = "/tmp"  # noqa: S108
_RESOURCES: Json = {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}


def build_pod(
    offer: Offer,
    name: str,
    fields: Sequence[Field],
    words: Sequence[str],
    outputs: Sequence[str],
    *,
    claims: Mapping[str, tuple[str, bool]],
) -> Json:
    """A template whose pod runs `tuneyard-trainer` with `words`.

    Args:
        offer: gives the image.
        name: of the template.
        fields: its inputs.
        words: the words of the command, with tags.
        outputs: names of the files in OUTPUT_FOLDER that become outputs.
        claims: name of a claim and whether it is read only, by the path where it is mounted.
    """
    volumes: list[Json] = [{"name": "tmp", "emptyDir": {}}]
    mounts: list[Json] = [{"name": "tmp", "mountPath": _TMP}]
    needed = {path: (claim, True) for claim, path in offer.mounts}
    for place, (path, (claim, read_only)) in enumerate({**claims, **needed}.items()):
        only = {"readOnly": True} if read_only else {}
        volumes.append({"name": f"claim-{place}", "persistentVolumeClaim": {"claimName": claim, **only}})
        mounts.append({"name": f"claim-{place}", "mountPath": path, **only})
    return {
        "name": name,
        "inputs": inputs(fields),
        # Only a pod that was lost: what it said against its input, it would say again.
        "retryStrategy": {"limit": "3", "retryPolicy": "OnError"},
        "podSpecPatch": json.dumps(_executor_security()),
        "volumes": volumes,
        "container": {
            "image": offer.image,
            "imagePullPolicy": offer.image_pull_policy,
            "command": ["tuneyard-trainer", *words[:1]],
            "args": [*words[1:], f"--outputs={OUTPUT_FOLDER}"],
            "env": [{"name": "HOME", "value": _TMP}],
            "resources": _RESOURCES,
            "securityContext": dict(CONTAINER_SECURITY),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": mounts,
        },
        "outputs": {
            "parameters": [
                {"name": output, "valueFrom": {"path": f"{OUTPUT_FOLDER}/{output}"}} for output in outputs
            ]
        },
    }


def _executor_security() -> Json:
    """What Argo's own containers of the pod need: without it, the restricted profile refuses the pod.

    They write to their root file system (argo-workflows issue 10787), so that stays as it is.
    """
    security = {name: CONTAINER_SECURITY[name] for name in ("allowPrivilegeEscalation", "capabilities")}
    return {
        "initContainers": [{"name": "init", "securityContext": security}],
        "containers": [{"name": "wait", "securityContext": security}],
    }
