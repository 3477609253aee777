# SPDX-License-Identifier: Apache-2.0
"""Real Helm renders the real charts with our values: they fit, every image is pinned and mirrored, Services are as named.

Charts are their projects' and not in this repository. `TUNEYARD_CHARTS` names a folder with one chart for each component,
`<folder>/<component>/Chart.yaml` (of the version that is pinned); without it these tests are skipped.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from tuneyard.catalog import catalog, pins, static_components
from tuneyard.catalog.scheduling import KUEUE_CONFIGURATION
from tuneyard.checks.chart_values import add_chart, check_chart_values
from tuneyard.environment.model import Environment
from tuneyard.render.argocd import build_project
from tuneyard.render.tree import derived_values
from tuneyard.stack.model import Stack
from tuneyard.stack.resolve import resolve
from tuneyard_api.yaml_io import dump, load
from tuneyard_local.errors import ClusterError
from tuneyard_local.parts import program

CHARTS = Path(os.environ.get("TUNEYARD_CHARTS", "/nonexistent"))
MIRROR = "registry.internal"
BASE: dict[str, Any] = {
    "name": "t",
    "preset": "nemo-microservices",
    "cluster": {"kubernetes": "1.34", "distribution": "rke2"},
    "argocd": {"repoUrl": "https://git.example.com/g.git"},
    "gpus": {"nodes": [{"product": "NVIDIA-H100-80GB-HBM3", "nodes": 4, "gpusPerNode": 8, "memoryGiB": 80}]},
    "storage": {"readWriteOnce": {"className": "block"}, "readWriteMany": {"className": "files"}},
    "fineTuning": {
        "runtimes": [{"name": "hf"}],
        "namespaces": [{"name": "team", "gpus": 4, "storageGiB": 2000}],
    },
    "components": {"kube-prometheus-stack": {"enabled": True}, "leader-worker-set": {"enabled": True}},
}
MIG = {"strategy": "mixed", "config": "all-1g.10gb", "partsPerGpu": 7, "memoryGiB": 10}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"components": {"leader-worker-set": {"enabled": True}}},
    "metrics": {"components": {**BASE["components"], "prometheus-adapter": {"enabled": True}}},
    "metrics, mirror": {
        "components": {**BASE["components"], "prometheus-adapter": {"enabled": True}},
        "registries": {"mirror": MIRROR},
    },
    "mirror": {"registries": {"mirror": MIRROR}},
    "open": {"preset": "open"},
    "open, mirror": {"preset": "open", "registries": {"mirror": MIRROR}},
    "allocation": {"use": {"gpu": "dra-driver"}},
    "allocation, mirror": {"use": {"gpu": "dra-driver"}, "registries": {"mirror": MIRROR}},
    "slices": {"gpus": {**BASE["gpus"], "timeSlicing": {"replicas": 4}}},
    "parts": {"gpus": {**BASE["gpus"], "mig": MIG}},
    "own drivers": {"gpus": {**BASE["gpus"], "driver": "preinstalled", "toolkit": "preinstalled"}},
}
RELEASED = {
    "us-central1-docker.pkg.dev/k8s-staging-images/kueue/kueue:release-0.19": "registry.k8s.io/kueue/kueue:v0.19.2",
    "ghcr.io/nvidia/k8s-nim-operator:release-3.0": "nvcr.io/nvidia/cloud-native/k8s-nim-operator:v3.1.2",
    "nvcr.io/nvidia/cloud-native/k8s-nim-operator:release-3.0": "nvcr.io/nvidia/cloud-native/k8s-nim-operator:v3.1.2",
    "registry.k8s.io/kueue/kueue:release-0.19": "registry.k8s.io/kueue/kueue:v0.19.2",
    "registry.k8s.io/lws/lws:main": "registry.k8s.io/lws/lws:v0.10.0",
    "nvcr.io/nvidia/gpu-operator:main-latest": "nvcr.io/nvidia/gpu-operator:v26.7.0",
}
"""What a project's release job puts in place of what its git tree says."""
API_VERSIONS = ("monitoring.coreos.com/v1", "resource.k8s.io/v1/DeviceClass")
_IMAGE = re.compile(r"(?:[a-z0-9-]+(?:\.[a-z0-9-]+)+/)+[\w./-]+:[\w.-]+")
WITH_CHART = sorted(
    c.name for c in static_components() if c.values and c.name in pins() and pins()[c.name].chart
)
HERE = [name for name in WITH_CHART if (CHARTS / name / "Chart.yaml").is_file()]


class Lenient(yaml.CSafeLoader):
    """Charts print what our own reader refuses: octal numbers, a bare `=`."""


Lenient.add_constructor("tag:yaml.org,2002:value", lambda _, node: node.value)
pytestmark = pytest.mark.skipif(not HERE, reason="TUNEYARD_CHARTS names no folder with charts")


@cache
def stack(variant: str) -> Stack:
    environment = Environment.model_validate({**BASE, **VARIANTS[variant]})
    return resolve(environment, catalog(environment), pins())


def cases() -> list[tuple[str, str]]:
    """Each way to render each chart once."""
    found: dict[str, tuple[str, str]] = {}
    for variant in VARIANTS if HERE else ():
        for name in HERE:
            if component := stack(variant).component(name):
                values = derived_values(stack(variant), component)
                found.setdefault(f"{name} {json.dumps(values, sort_keys=True)}", (name, variant))
    return sorted(found.values())


@pytest.fixture(scope="module")
def charts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies whose Chart.yaml says the pinned version, without dependencies that are not there (all of them are off)."""
    folder = tmp_path_factory.mktemp("charts")
    for name in HERE:
        shutil.copytree(CHARTS / name, folder / name)
        file = folder / name / "Chart.yaml"
        about = load(file.read_text()).value
        subcharts = folder / name / "charts"
        about["dependencies"] = [
            entry
            for entry in about.get("dependencies", ())
            if (subcharts / entry["name"]).is_dir() or [*subcharts.glob(f"{entry['name']}-*.tgz")]
        ]
        if about["version"] != pins()[name].version:
            about |= {"version": pins()[name].version, "appVersion": pins()[name].version}
        file.write_text(dump(about))
    return folder


def rendered(charts: Path, name: str, variant: str, folder: Path) -> list[dict[str, Any]]:
    component = stack(variant).component(name)
    assert component
    (folder / "values.yaml").write_text(dump(derived_values(stack(variant), component)))
    try:
        helm = program("helm")
    except ClusterError as error:
        pytest.skip(str(error))
    argv = [
        helm,
        "template",
        name,
        charts / name,
        "-f",
        folder / "values.yaml",
        "--namespace",
        component.namespace,
    ]
    argv += ["--kube-version", "1.34", *(word for api in API_VERSIONS for word in ("--api-versions", api))]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    documents = yaml.load_all(done.stdout, Lenient)
    return [entry for entry in documents if entry and entry["kind"] != "CustomResourceDefinition"]


def images_in(value: Any) -> Iterator[str]:
    """Images of containers, those in arguments and settings, and the GPU Operator's in three parts."""
    if isinstance(value, dict):
        if {"repository", "image", "version"} <= value.keys() and value.get("enabled", True):
            yield f"{value['repository']}/{value['image']}:{value['version']}"
        if ":" in (image := str(value.get("image", ""))) and "repository" not in value:
            yield image if "." in image.partition("/")[0] and "/" in image else f"docker.io/{image}"
        for child in value.values():
            yield from images_in(child)
    elif isinstance(value, list):
        for child in value:
            yield from images_in(child)
    elif isinstance(value, str) and len(value) < 500 and "://" not in value:
        yield from _IMAGE.findall(value)


def is_cluster_scoped(entry: dict[str, Any]) -> bool:
    """Kinds without a namespace, in Kubernetes and in the operators here; all other kinds have one."""
    return entry["kind"] in {
        "APIService", "ClusterIssuer", "ClusterPolicy", "ClusterRole", "ClusterRoleBinding", "CSIDriver", "DeviceClass",
        "FlowSchema", "GPUCluster", "IngressClass", "MutatingWebhookConfiguration", "Namespace", "NodeFeatureRule",
        "PriorityClass", "PriorityLevelConfiguration", "Queue", "RuntimeClass", "StorageClass",
        "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "variant"), cases())
def test_the_chart_takes_our_values(charts: Path, name: str, variant: str, tmp_path: Path) -> None:
    objects = rendered(charts, name, variant, tmp_path)
    component = stack(variant).component(name)
    assert component
    mirror = stack(variant).environment.registries.mirror
    images = {image for entry in objects for image in images_in(entry)}
    if mirror:
        assert sorted(image for image in images if not image.startswith(f"{mirror}/")) == []
        images = {image.removeprefix(f"{mirror}/") for image in images}
    assert {RELEASED.get(image, image) for image in images} <= set(pins()[name].deploys)
    services = {
        entry["metadata"]["name"]: {port["port"] for port in entry["spec"]["ports"]}
        for entry in objects
        if entry["kind"] == "Service"
    }
    for service in component.services(stack(variant).environment).values():
        assert service.port in services.get(service.name, set()), services
    project = build_project(stack(variant))["spec"]
    namespaces = {destination["namespace"] for destination in project["destinations"]}
    assert {entry["metadata"].get("namespace", component.namespace) for entry in objects} <= namespaces
    allowed = {(entry["group"], entry["kind"]) for entry in project["clusterResourceWhitelist"]}
    for entry in objects:
        group = entry["apiVersion"].rpartition("/")[0]
        if is_cluster_scoped(entry):
            assert {(group, entry["kind"]), (group, "*")} & allowed, (
                f"the AppProject refuses {group} {entry['kind']}"
            )


@pytest.mark.skipif("milvus" not in HERE, reason="TUNEYARD_CHARTS has no milvus")
def test_everything_below_milvus_folder_is_on_its_claim(charts: Path, tmp_path: Path) -> None:
    """Its etcd and its local storage are in folders of their own below /var/lib/milvus."""
    (server,) = [e for e in rendered(charts, "milvus", "plain", tmp_path) if e["kind"] == "Deployment"]
    pod = server["spec"]["template"]["spec"]
    below = [m for m in pod["containers"][0]["volumeMounts"] if m["mountPath"].startswith("/var/lib/milvus")]
    claims = {v["name"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
    assert [m["mountPath"] for m in below] == ["/var/lib/milvus"]
    assert {m["name"] for m in below} <= claims


@pytest.mark.skipif("kueue" not in HERE, reason="TUNEYARD_CHARTS has no kueue")
def test_kueue_s_configuration_is_the_chart_s_but_for_what_it_queues() -> None:
    values = load((CHARTS / "kueue/values.yaml").read_text()).value
    theirs = load(values["managerConfig"]["controllerManagerConfigYaml"]).value
    assert KUEUE_CONFIGURATION["integrations"]["frameworks"] == theirs["integrations"]["frameworks"][:1]
    del theirs["integrations"], theirs["controller"]["groupKindConcurrency"]["Pod"]
    assert {key: value for key, value in KUEUE_CONFIGURATION.items() if key != "integrations"} == theirs


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_key_of_our_values_is_one_of_the_chart(charts: Path, variant: str, tmp_path: Path) -> None:
    for name in HERE:
        add_chart(charts / name, tmp_path)
    assert [str(finding) for finding in check_chart_values(stack(variant), tmp_path)] == []


def test_no_pinned_image_is_left_over(charts: Path, tmp_path: Path) -> None:
    """What `deploys` names is in some way to render the chart."""
    found: dict[str, set[str]] = {}
    for name, variant in cases():
        if not stack(variant).environment.registries.mirror:
            objects = rendered(charts, name, variant, tmp_path)
            found.setdefault(name, set()).update(RELEASED.get(i, i) for e in objects for i in images_in(e))
    assert {name: sorted(set(pins()[name].deploys) - images) for name, images in found.items()} == {
        name: [] for name in found
    }
