# SPDX-License-Identifier: Apache-2.0
"""All stages of a FineTuneJob on this machine: the same plan and the same stages as in a cluster, without one.

Claims become folders; nothing else differs, so that what works here works there.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from tuneyard_api import durable
from tuneyard_api import pod_contract as pod
from tuneyard_api.data_stores import ENV_SOURCE_STORE_TOKEN
from tuneyard_api.job import FineTuneJob
from tuneyard_api.local_runtime import LOCAL_RUNTIMES, build_local_runtime
from tuneyard_api.places import ClaimSource
from tuneyard_api.planner import Plan, PlanRefused, digest_of, make_plan
from tuneyard_api.pod_contract import EXIT_CODES, FailureClass, ResolvedJob, ResolvedSource, Stage
from tuneyard_api.problems import InputRefused
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_api.validate import load_runtime, locate, read_job
from tuneyard_api.yaml_io import load

from tuneyard_trainer.pod.results import earlier_success

_BAD_INPUT = EXIT_CODES[FailureClass.BAD_INPUT]
_REGISTRY = "registry"
"""Claim of the registry when neither job nor runtime names one."""


class RunRefused(ValueError):  # noqa: N818  refused before anything runs
    """The command line lacks something; the message names it."""


def run_locally(
    job_file: Path,
    workspace: Path | None,
    registry: Path | None,
    runtime_file: Path | None,
    claims: tuple[str, ...],
) -> int:
    """Plans the job and runs its stages; the exit code is that of the first stage that fails, else 0."""
    try:
        document = load(job_file.read_text(encoding="utf-8"), str(job_file))
        job = read_job(document)
        _check_nodes(job)
        try:
            plan = make_plan(job, _runtime(job, runtime_file))
        except PlanRefused as refused:
            raise locate(refused, document) from None
        workspace = (workspace or Path(f"{job.metadata.name}-workspace")).resolve()
        resolved = with_local_paths(plan, _folders(claims), (registry or workspace / _REGISTRY).resolve())
    except (InputRefused, RunRefused) as refused:
        print(refused, file=sys.stderr)
        return _BAD_INPUT
    durable.write_file(workspace / "job.json", resolved.model_dump_json(indent=2).encode())
    for stage in Stage:
        code = _run_stage(stage, workspace)
        if code:
            return code
    _summarise(resolved, workspace)
    return 0


def _check_nodes(job: FineTuneJob) -> None:
    nodes = job.spec.parallelism.nodes
    if nodes > 1:
        raise RunRefused(
            f"spec.parallelism.nodes: this machine is one node (got {nodes}); try 1, and gpusPerNode for its GPUs"
        )


def _runtime(job: FineTuneJob, file: Path | None) -> FineTuneRuntime:
    """The runtime from the file, or a built-in one: `hf` for NVIDIA GPUs, `hf-cpu` without; no other than was asked for."""
    if file is not None:
        runtime = load_runtime(file.read_text(encoding="utf-8"), str(file))
    elif job.spec.runtime.name in LOCAL_RUNTIMES:
        runtime = build_local_runtime(job.spec.runtime.name)
    else:
        raise RunRefused(
            f"spec.runtime.name: built in are hf and hf-cpu (got {job.spec.runtime.name}); try --runtime FILE"
        )
    if runtime.spec.defaults.any_registry is not None:
        return runtime
    defaults = runtime.spec.defaults.model_copy(update={"registry": ClaimSource(claim_name=_REGISTRY)})
    return runtime.model_copy(update={"spec": runtime.spec.model_copy(update={"defaults": defaults})})


def _folders(claims: tuple[str, ...]) -> dict[str, Path]:
    folders = {}
    for claim in claims:
        name, separator, folder = claim.partition("=")
        if not separator or not Path(folder).is_dir():
            raise RunRefused(f"--claim {claim}: expected NAME=FOLDER with a folder that is there")
        folders[name] = Path(folder).resolve()
    return folders


def with_local_paths(plan: Plan, folders: Mapping[str, Path], registry: Path) -> ResolvedJob:
    """The plan's job with folders in place of mounted claims, and `registry` in place of a claim or a bucket.

    Raises:
        RunRefused: naming every claim that has no folder.
    """
    if plan.registry_claim is not None:
        folders = {**folders, plan.registry_claim: registry}
    mounts = {m.path: m.claim for m in plan.mounts if m.path.startswith((pod.SOURCES_DIR, pod.REGISTRY_DIR))}
    if missing := sorted(set(mounts.values()) - set(folders)):
        raise RunRefused("\n".join(f"claim {name}: try --claim {name}=FOLDER" for name in missing))

    def local(path: str) -> str:
        mount = next(m for m in sorted(mounts, reverse=True) if PurePosixPath(path).is_relative_to(m))
        return str(folders[mounts[mount]] / PurePosixPath(path).relative_to(mount))

    def local_source(source: ResolvedSource | None) -> ResolvedSource | None:
        if source is None or source.path is None or source.repo is not None:
            return source
        return source.model_copy(update={"path": local(source.path)})

    job = plan.resolved
    splits = {name: local_source(getattr(job.dataset, name)) for name in ("training", "validation", "test")}
    return job.model_copy(
        update={
            "model": local_source(job.model),
            "adapter": job.adapter and job.adapter.model_copy(update={"path": local(job.adapter.path)}),
            "dataset": job.dataset.model_copy(update=splits),
            "registry_path": local(job.registry_path) if job.registry_path else str(registry),
            "benchmarks_path": job.benchmarks_path and local(job.benchmarks_path),
            "registry_s3": None,
            "registry_data_store": None,
        }
    )


def _run_stage(stage: Stage, workspace: Path) -> int:
    """Run a stage in its own process, as in a pod. Ctrl-C reaches it too, and it ends by itself."""
    environ = os.environ | {
        pod.ENV_JOB_FILE: str(workspace / "job.json"),
        pod.ENV_WORKSPACE: str(workspace),
        pod.ENV_TERMINATION_LOG: str(workspace / "termination-log"),
        pod.ENV_PORT: os.environ.get(pod.ENV_PORT, ""),
    }
    if stage is not Stage.PREPARE:
        for variable in (pod.ENV_HUB_TOKEN, ENV_SOURCE_STORE_TOKEN, *pod.ENV_S3):
            environ.pop(variable, None)
    process = subprocess.Popen(
        [sys.executable, "-m", "tuneyard_trainer.main", "stage", stage.value], env=environ
    )
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, previous)


def _summarise(job: ResolvedJob, workspace: Path) -> None:
    digest = digest_of(job)
    trained = earlier_success(workspace, Stage.TRAIN, digest)
    published = earlier_success(workspace, Stage.PUBLISH, digest)
    if trained is None or published is None:
        return
    facts = pod.TrainFacts.model_validate(trained.facts)
    print(f"\nadapter  {published.facts['path']}\ndigest   {published.facts['digest']}")
    if facts.evaluation:
        base, tuned = facts.evaluation.base, facts.evaluation.tuned
        print(f"loss     {base.loss:.4f} -> {tuned.loss:.4f}")
        if pairs := facts.evaluation.preferences:
            print(
                f"chosen   {pairs.base_accuracy:.4f} -> {pairs.tuned_accuracy:.4f} preferred, of {pairs.pairs} pairs"
            )
        print(f"ROUGE-L  {base.rouge_l:.4f} -> {tuned.rouge_l:.4f} over {tuned.prompts} prompts")
    print(f"answers  {workspace / 'evaluation/samples.jsonl'}")
