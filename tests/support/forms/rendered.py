# SPDX-License-Identifier: Apache-2.0
"""The objects of the component `workflow-templates` of a small environment, and the values of Argo's server there."""

from typing import Any

from tuneyard.catalog import catalog, pins
from tuneyard.environment.model import Environment
from tuneyard.stack.model import Stack
from tuneyard.stack.resolve import resolve

Json = dict[str, Any]


def rendered(namespace: str) -> list[Json]:
    """What the component `workflow-templates` makes for one namespace of jobs."""
    stack = _stack(namespace)
    component = stack.component("workflow-templates")
    assert component
    assert component.objects
    return list(component.objects(stack))


def _stack(namespace: str) -> Stack:
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
    return resolve(environment, catalog(environment), pins())


def server_values() -> Json:
    """What the chart of Argo Workflows gets for its server in the same environment."""
    stack = _stack("team")
    component = stack.component("argo-workflows")
    assert component
    assert component.values
    found: Json = component.values(stack)["server"]
    return found
