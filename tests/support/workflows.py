# SPDX-License-Identifier: Apache-2.0
"""Workflows of Argo on real nodes: forms to fill in, waiting for what happens, and reading what came out."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from tuneyard_local import installation
from tuneyard_local.argo_workflows import NAME

from support.bench import Bench

Json = dict[str, Any]
MODEL = f"pvc:models/{installation.BASE_MODEL}"
TRAINING = {"model": MODEL, "maxSequenceLength": "256", "learningRate": "0.003", "epochs": "0.2"}


def wait(bench: Bench, name: str, what: str, is_so: Callable[[Json], Any], seconds: float) -> Any:
    """The first true answer about the Workflow; fails with its nodes and its pods on timeout or when it has ended."""
    end, body = time.monotonic() + seconds, None
    while time.monotonic() < end:
        body = bench.get("workflows", name)
        if body and (answer := is_so(body)):
            return answer
        if body and body.get("status", {}).get("phase") in {"Failed", "Error", "Succeeded"}:
            break
        time.sleep(1)
    label = f"workflows.argoproj.io/workflow={name}"
    pods = bench.cluster.kubectl("-n", bench.namespace, "describe", "pods", "-l", label).stdout
    log = bench.cluster.processes.log(NAME).read_text()[-3000:]
    pytest.fail("\n".join([f"{name}: waited for {what}", said_by(body or {}), pods[-5000:], log]))


def said_by(body: Json) -> str:
    """What the workflow and its nodes say, a line each."""
    status = body.get("status", {})
    nodes = [
        f"{node['displayName']}: {node['phase']}: {node.get('message', '')}"
        for node in status.get("nodes", {}).values()
    ]
    return "\n".join([f"{status.get('phase')}: {status.get('message')}", *nodes])


def ended(*phases: str) -> Callable[[Json], Json | None]:
    """True of a Workflow in one of these phases."""
    return lambda body: body if body.get("status", {}).get("phase") in phases else None


def outputs_of(body: Json, step: str) -> dict[str, str]:
    """The outputs of the node of a step; the whole workflow's node has its name."""
    nodes = body["status"]["nodes"].values()
    found = next(node for node in nodes if node["displayName"] == step and node.get("outputs"))
    return {entry["name"]: entry["value"] for entry in found["outputs"]["parameters"]}


def digest_of(bench: Bench, name: str) -> str:
    """The digest of the version that a name in the registry stands for."""
    return f"sha256:{(bench.registry() / name).readlink().name}"
