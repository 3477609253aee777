# SPDX-License-Identifier: Apache-2.0
"""One namespace with the rendered workflow templates and Argo's controller, for all tests of this topic."""

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tuneyard.catalog import catalog
from tuneyard.catalog.pins import pins
from tuneyard.environment.model import Environment
from tuneyard.resolve import resolve
from tuneyard_api.yaml_io import dump_all, load
from tuneyard_local.cluster import Cluster

sys.path.insert(0, str(Path(__file__).parent / "harness"))

from argo_workflows import ArgoWorkflows

ROOT = Path(__file__).parents[2]
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def rendered(namespace: str) -> list[dict[str, Any]]:
    """What the component `workflow-templates` makes for one namespace of jobs."""
    environment = Environment.model_validate(
        {
            "name": "t",
            "preset": "open",
            "argocd": {"repoUrl": "https://git.example.com/g.git"},
            "storage": {"readWriteOnce": {"className": "block"}},
            "gpus": {"nodes": [{"product": "NVIDIA-L40S", "gpusPerNode": 2, "memoryGiB": 48}]},
            "fineTuning": {
                "runtimes": [{"name": "hf", "methods": ["lora", "sft"]}],
                "namespaces": [{"name": namespace}],
            },
            "components": {"workflow-templates": {"enabled": True}},
        }
    )
    stack = resolve(environment, catalog(environment), pins())
    component = stack.component("workflow-templates")
    assert component
    assert component.objects
    return list(component.objects(stack))


@pytest.fixture(scope="session")
def workflows(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArgoWorkflows]:
    """Argo Workflows with the templates, which the API server has taken strictly."""
    name = f"t-{uuid.uuid4().hex[:10]}"
    metadata = {"name": name, "labels": RESTRICTED}
    crd = load((ROOT / "manifests/crds/finetunejobs.tuneyard.io.yaml").read_text()).value
    control_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, crd)
    with ArgoWorkflows(control_plane, name, tmp_path_factory.mktemp("workflows")) as argo:
        argo.kubectl("apply", "--validate=strict", "-f", "-", stdin=dump_all(rendered(name)))
        yield argo
    control_plane.kubectl("delete", "namespace", name, "--wait=false")
