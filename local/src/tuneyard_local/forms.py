# SPDX-License-Identifier: Apache-2.0
"""The forms of Argo Workflows in a namespace of jobs, raw records to fill in, and a place for curated ones."""

from __future__ import annotations

import json
from pathlib import Path

from tuneyard_workflows.accounts import build_account, build_user
from tuneyard_workflows.form import Offer
from tuneyard_workflows.templates import build_templates

from tuneyard_local.cluster import Cluster
from tuneyard_local.images import ENVIRONMENT_MOUNT
from tuneyard_local.installation import RUNTIME, BuiltParts
from tuneyard_local.storage import bind_folder

RAW, RECORDS, CURATED = "raw", "records.jsonl", "curated"
"""The claim with raw records, their file in it, and the claim for curated ones."""
PLACES = {"rawData": f"pvc:{RAW}/{RECORDS}", "keepIn": f"pvc:{CURATED}/runs"}
"""Where `finetune-pipeline` finds and keeps them: two of its parameters."""


def install_forms(cluster: Cluster, parts: BuiltParts, namespace: str, raw: Path) -> None:
    """Bring accounts, templates and claims to the namespace; `raw` is the folder with raw records."""
    offer = Offer(
        namespace=namespace,
        runtimes=(RUNTIME,),
        methods=("lora",),
        image=parts.trainer.reference,
        image_pull_policy="Never",
        mounts=(("pytorch", ENVIRONMENT_MOUNT),),
    )
    bind_folder(cluster, namespace, RAW, raw, read_only=True)
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CURATED, "namespace": namespace},
            "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
        },
        *build_account(namespace),
        *build_user(namespace),
        *build_templates(offer),
    )


def write_raw_records(source: Path, folder: Path, clean: int) -> None:
    """Write the first `clean` records of a file of docstrings, and eight that are not to be trained on, into `folder`."""
    lines = source.read_text(encoding="utf-8").splitlines()[:clean]
    first = json.loads(lines[0])
    shouted = {**first, "completion": first["completion"].upper()}
    personal = {**first, "completion": "Write to ada@example.com or call +49 30 1234567."}
    copies = [lines[1], lines[1]]
    broken = ["{torn", "[1]", "{}", json.dumps({"prompt": 1})]
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    target = folder / RECORDS
    target.write_text(
        "\n".join([*lines, *copies, json.dumps(shouted), json.dumps(personal), *broken]) + "\n",
        encoding="utf-8",
    )
    target.chmod(0o644)
