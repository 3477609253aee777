# SPDX-License-Identifier: Apache-2.0
"""Checks a model's modules before a GPU is requested: built by transformers without weights, in a process of its own.

It is a process because PyTorch would stay in the stage's memory; it takes about 10 s and 0.6 GB, and 30 s and 0.8 GB for a
model of hundreds of experts (transformers 5.23, one core).
"""

import json
import os
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

from tuneyard_api.pod_contract import ResolvedJob

from tuneyard_trainer.pod.failures import bad_input

_MAX_SECONDS = 600


def check_module_tree(job: ResolvedJob, folder: Path) -> list[str]:
    """Warnings of the model's modules; none where PyTorch is not installed.

    Raises:
        StageFailure: BadInput, if transformers can't build the model, or an adapter can't be put on it.
    """
    # Stages that must stay small hide PyTorch from their own imports; the question is whether it is on the disk.
    if PathFinder.find_spec("torch") is None:
        return []
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tuneyard_trainer.model.module_tree_process", str(folder)],
            input=job.model_dump_json(),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=_MAX_SECONDS,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        )
    except subprocess.TimeoutExpired:
        return [_unchecked(f"took more than {_MAX_SECONDS} s")]
    if done.returncode:
        return [_unchecked(f"ended with code {done.returncode}")]
    said = json.loads(done.stdout.splitlines()[-1])
    if said["problem"]:
        raise bad_input(said["problem"])
    warnings: list[str] = said["warnings"]
    return warnings


def _unchecked(why: str) -> str:
    return f"the model's modules could not be checked before the training: the check {why}"
