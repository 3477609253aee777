# SPDX-License-Identifier: Apache-2.0
"""`make demo-pipeline`: one `tuneyard submit` takes raw records to a curated, trained, evaluated, approved, served adapter.

Argo Workflows' own controller runs the form beside the local cluster; the pods of its stages run on the cluster's nodes.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import click
from tuneyard_workflows.pipeline import PIPELINE
from tuneyard_workflows.stages import APPROVED, REFUSED

from tuneyard_local import argo_workflows, forms, images, installation, native
from tuneyard_local.argo_workflows import ArgoWorkflows
from tuneyard_local.cluster import Cluster
from tuneyard_local.demo.follow import Follower, WorkflowFollower, score_table, waiting_approval
from tuneyard_local.demo.main_job import NAMESPACE, kubectl, minutes
from tuneyard_local.errors import ClusterError
from tuneyard_local.parts import build_parts
from tuneyard_local.paths import cache_root, script
from tuneyard_local.progress import Progress

CLUSTER = "demo-pipeline"
SIZE = native.NativeOptions(nodes=1, gpus=8)
RECORDS = 600
"""Records that are good, among eight that are not."""
SECONDS = 1800
"""Longest time for the workflow before the demo reports that something is wrong."""


def run(progress: Progress, *, is_agreed: bool) -> None:
    """The whole way; `is_agreed` approves the adapter without asking. Raises ClusterError with what the workflow says."""
    started = time.monotonic()
    parts = installation.build(progress)
    build_parts(argo_workflows.PARTS, progress)
    cluster = Cluster(CLUSTER)
    if not cluster.is_there:
        native.up(CLUSTER, SIZE, progress)
    installation.install(cluster, parts, NAMESPACE, progress)
    install_argo(cluster, parts, cache_root() / "raw-records", progress)
    progress.say("Argo Workflows runs, with the forms of the namespace")
    form = {
        "name": f"answers-{int(time.time())}",
        "model": f"pvc:models/{parts.model.name}",
        **forms.PLACES,
        "maxSequenceLength": "256",
        "learningRate": "0.003",
        "gate": "notWorseThanBase",
    }
    workflow = submit(cluster, form)
    outputs = follow(cluster, workflow, progress, is_agreed=is_agreed)
    words = installation.kubectl_words(cluster)
    lines = [
        "",
        *score_table(json.loads(outputs["metrics"])),
        "",
        f"  adapter     {outputs['modelName']}  {outputs['digest']}",
        f"  endpoint    {outputs['endpoint']} (in the cluster), ROUGE-L of its answers {float(outputs['rougeL']):.3f}",
        f"  its answer  {' '.join(outputs['answer'].split())[:100]}",
        f"  time        {minutes(time.monotonic() - started)}",
        "",
        "Look around, then remove it:",
        f"  {words} -n {NAMESPACE} get workflows,ftj,pods",
        "  make demo-down",
    ]
    click.echo("\n".join(lines))


def remove() -> None:
    """Remove the demo's cluster and all its data; caches stay."""
    Cluster(CLUSTER).down()


def install_argo(
    cluster: Cluster, parts: installation.BuiltParts, raw: Path, progress: Progress
) -> ArgoWorkflows:
    """Bring the executor's image, the controller, the forms, and records with the usual dirt in the folder `raw`."""
    executor = images.build_argoexec(progress)
    images.load_images(cluster, executor)
    argo = ArgoWorkflows(cluster, executor.reference)
    argo.install()
    argo.start()
    forms.write_raw_records(parts.datasets / "docstrings" / "train.jsonl", raw, RECORDS)
    forms.install_forms(cluster, parts, NAMESPACE, raw)
    return argo


def submit(cluster: Cluster, form: Mapping[str, str]) -> str:
    """Submit the form by the command line, as a person would; returns the workflow's name."""
    given = [word for name, value in form.items() for word in ("-p", f"{name}={value}")]
    click.echo(f"\ntuneyard submit {PIPELINE} {' '.join(given)}")
    where = ["--kubeconfig", str(cluster.kubeconfig), "-n", NAMESPACE]
    done = subprocess.run(
        [str(script("tuneyard")), "submit", PIPELINE, *given, *where, "-o", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ClusterError(f"tuneyard submit: {done.stderr.strip() or done.stdout.strip()}")
    return str(json.loads(done.stdout)["name"])


def follow(cluster: Cluster, name: str, progress: Progress, *, is_agreed: bool) -> dict[str, str]:
    """Print what happens until the workflow has ended; returns its outputs. Raises ClusterError when it fails."""
    stages, job, end = WorkflowFollower(), Follower(), time.monotonic() + SECONDS
    paths = {
        kind: f"/apis/{group}/namespaces/{NAMESPACE}/{kind}/{name}"
        for kind, group in (("workflows", "argoproj.io/v1alpha1"), ("finetunejobs", "tuneyard.io/v1alpha1"))
    }
    while time.monotonic() < end:
        status = (cluster.get(paths["workflows"]) or {}).get("status", {})
        trained = (cluster.get(paths["finetunejobs"]) or {}).get("status", {})
        for line in (*stages.news(status), *(f"  {line}" for line in job.news(trained))):
            progress.say(line)
        if (node := waiting_approval(status)) is not None:
            if not is_agreed:
                click.echo("\n".join(["", *score_table(trained["result"]["metrics"]), ""]))
            answer(cluster, name, node, is_approved=is_agreed or click.confirm("Approve it?"))
        if status.get("phase") in ("Succeeded", "Failed", "Error"):
            break
        cluster.processes.require_alive()
        time.sleep(1)
    if status.get("phase") != "Succeeded":
        raise ClusterError(f"workflow {name} is {status.get('phase')}: {status.get('message')}")
    outputs = status["nodes"][name]["outputs"]["parameters"]
    return {entry["name"]: entry["value"] for entry in outputs}


def answer(cluster: Cluster, workflow: str, node: str, *, is_approved: bool) -> None:
    """Do what Argo's page does when a person fills in the answer."""
    value = APPROVED if is_approved else REFUSED
    given = {"phase": "Succeeded", "outputs": {"parameters": [{"name": "approved", "value": value}]}}
    patch = json.dumps({"status": {"nodes": {node: given}}})
    kubectl(cluster, "-n", NAMESPACE, "patch", "workflow", workflow, "--type=merge", "-p", patch)
