# SPDX-License-Identifier: Apache-2.0
"""Real vLLM on CPU, from the package index alone: its environment, the settings that make it small, a process, a pod.

It defines how a server of adapters must behave; see tests/serving. Nothing here is for production.
"""

from __future__ import annotations

import copy
import ctypes.util
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuneyard_local.cluster import Cluster
from tuneyard_local.environment import PODS_PYTHON, build_environment, export_requirements, find_python
from tuneyard_local.errors import ClusterError
from tuneyard_local.images import (
    USER,
    Image,
    build_base_layer,
    build_script_layer,
    describe_image,
    load_images,
)
from tuneyard_local.packages import install_packages
from tuneyard_local.parts import is_supported_platform
from tuneyard_local.paths import REPOSITORY, cache_root
from tuneyard_local.progress import Progress
from tuneyard_local.storage import bind_folder

PROJECT = REPOSITORY / "local" / "vllm"
DISK_GIB = 4.0
"""What its wheels and their unpacked files take beside the trainer's, which share NVIDIA's libraries with it."""
NUMA_PACKAGE = "libnuma1"
"""The one library that its kernels need and no wheel brings."""
MODULE = "vllm.entrypoints.cli.main"
ENVIRONMENT_CLAIM, ENVIRONMENT_MOUNT = "vllm", "/opt/vllm"
"""The environment is in no image: pods mount it."""
HUB_CLAIM, HUB_MOUNT = "hub", "/hub"
"""Base models by the name of their repository, ORG/NAME. It is the working directory: there vLLM takes a folder of that
name for the model, and no hub is asked."""

VARIABLES: Mapping[str, str] = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB, the least
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",  # two threads on two busy cores wait for each other: 4 s instead of 0.3 for 12 tokens
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # with `uni` below: the engine is its own worker, one start less
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
ARGUMENTS: Sequence[str] = ("--enforce-eager", "--distributed-executor-backend=uni", "--dtype=float32")
"""No compilation, one process for the engine, and the numbers of the trainer's evaluation on CPU."""
IMPORTED_AT_START = (
    "vllm.entrypoints.cli.serve",
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.worker.cpu_model_runner",
)


def missing_for_vllm() -> str | None:
    """Why vLLM can't run here, in one line; None when it can."""
    if not is_supported_platform():
        return "vLLM's wheel for CPU is taken for Linux on x86-64 only"
    if "avx2" not in Path("/proc/cpuinfo").read_text():
        return "vLLM needs a CPU with AVX2"
    if find_python() is None:
        return f"vLLM's environment is that of pods: Python {PODS_PYTHON} is missing (this is {sys.version.split()[0]})"
    if ctypes.util.find_library("numa") is None and os.geteuid() != 0:
        return f"{NUMA_PACKAGE} is missing; try: apt-get install {NUMA_PACKAGE}"
    return None


def build_vllm_environment(progress: Progress) -> Path:
    """The folder of its packages, for pods and for this machine; made once for each state of its lock."""
    if ctypes.util.find_library("numa") is None:
        install_packages([NUMA_PACKAGE], progress)
    requirements = export_requirements((), PROJECT)
    folder = cache_root() / "vllm"

    def finish(fresh: Path) -> None:
        _name_distribution(fresh)
        _write_byte_code(fresh, progress)

    return build_environment(
        "vLLM's environment", requirements, folder, progress, disk_gib=DISK_GIB, finish=finish
    )


def _name_distribution(folder: Path) -> None:
    """Let `vllm-cpu` be found as `vllm` too: under that name it looks its version up, and `+cpu` in it tells the platform."""
    (found,) = folder.glob("vllm_cpu-*.dist-info")
    version = f"{found.name.removeprefix('vllm_cpu-').removesuffix('.dist-info')}+cpu"
    alias = folder / f"vllm-{version}.dist-info"
    alias.mkdir()
    (alias / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


def _write_byte_code(folder: Path, progress: Progress) -> None:
    """Import it once: of 21,000 modules only those that a server needs get byte code, which halves its start."""
    python = find_python()
    if python is None:
        return  # Pods run it without.
    env = build_process_environment(folder, {}) | {"PYTHONWARNINGS": "ignore"}
    argv = [python, "-c", f"import {', '.join(IMPORTED_AT_START)}"]
    progress.run("importing vLLM for the first time", argv, folder.with_suffix(".import.log"), env)


def build_process_environment(folder: Path, adapters: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process that runs it on this machine: nothing of the caller's Python, and VARIABLES."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VLLM"))}
    return inherited | dict(VARIABLES) | dict(adapters) | {"PYTHONPATH": str(folder)}


def start_process(
    folder: Path, arguments: Sequence[str], variables: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Start it on this machine with arguments and variables beside the small ones; what it says goes to `log`."""
    python = find_python()
    if python is None:
        raise ClusterError(missing_for_vllm() or "")
    argv = [python, "-m", MODULE, "serve", *arguments, *ARGUMENTS]
    env = build_process_environment(folder, variables)
    with log.open("wb") as stream:
        # A session of its own, so that its engine, another process, ends with it for sure.
        return subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )


def build_vllm_image(progress: Progress) -> Image:
    """An image with the program `vllm`, as vLLM's own has it; what makes it small is inside, what it needs is mounted."""
    script = (
        f'#!/bin/sh\nexport PYTHONPATH="$PYTHONPATH:{ENVIRONMENT_MOUNT}"\n'
        f'exec python3 -m {MODULE} "$@" {" ".join(ARGUMENTS)}\n'
    )
    variables = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        **VARIABLES,
    }
    config = {
        "User": USER,
        "Env": [f"{key}={value}" for key, value in variables.items()],
        "Entrypoint": ["vllm", "serve"],
        "WorkingDir": HUB_MOUNT,
    }
    return describe_image("vllm", [build_base_layer(progress), build_script_layer("vllm", script)], config)


def fit_deployment(deployment: Mapping[str, Any], image: Image) -> dict[str, Any]:
    """A rendered Deployment of vLLM as it runs on the local cluster; its arguments and variables stay as rendered.

    Other: the image, the environment and the base models as read-only mounts, and what it asks of CPU and memory.
    """
    fitted = copy.deepcopy(dict(deployment))
    pod = fitted["spec"]["template"]["spec"]
    (container,) = (each for each in pod["containers"] if each["name"] == "vllm")
    container |= {"image": image.reference, "imagePullPolicy": "Never"}
    container["resources"]["requests"] |= {"cpu": "500m", "memory": "3Gi"}
    for claim, path in ((ENVIRONMENT_CLAIM, ENVIRONMENT_MOUNT), (HUB_CLAIM, HUB_MOUNT)):
        container["volumeMounts"].append({"name": claim, "mountPath": path, "readOnly": True})
        pod["volumes"].append(
            {"name": claim, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        )
    return fitted


def install_vllm(
    cluster: Cluster, namespace: str, objects: Sequence[Mapping[str, Any]], hub: Path, progress: Progress
) -> None:
    """Apply the rendered objects of a served model to a namespace that exists, so that real vLLM answers; see wait_for_deployment.

    `hub` holds base models as <hub>/ORG/NAME; the claims that the Deployment mounts must be bound by the cluster's class.
    """
    environment, image = build_vllm_environment(progress), build_vllm_image(progress)
    load_images(cluster, image)
    bind_folder(cluster, namespace, ENVIRONMENT_CLAIM, environment, read_only=True)
    bind_folder(cluster, namespace, HUB_CLAIM, hub, read_only=True)
    cluster.apply(
        *(fit_deployment(each, image) if each["kind"] == "Deployment" else each for each in objects)
    )
