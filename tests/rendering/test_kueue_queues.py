# SPDX-License-Identifier: Apache-2.0
"""What is rendered for Kueue lets every job of a namespace through its queue, lends what is idle and takes it back.

Kueue 0.19.2 gives a Job without a label to the LocalQueue `default` of its namespace, and to no other.
"""

from typing import Any

import pytest
from tuneyard.catalog import catalog, pins
from tuneyard.catalog.tuneyard import COMPONENTS as OURS
from tuneyard.environment.model import Environment
from tuneyard.render.tree import derived_values
from tuneyard.stack.model import Stack
from tuneyard.stack.resolve import resolve
from tuneyard_api.yaml_io import load

Json = dict[str, Any]
NAMESPACES = [{"name": "team-a", "gpus": 3}, {"name": "team-b", "gpus": 5}]


def stack(scheduler: str) -> Stack:
    environment = Environment.model_validate(
        {
            "name": "t",
            "argocd": {"repoUrl": "https://git.example.com/g.git"},
            "gpus": {"nodes": [{"product": "NVIDIA-L40S", "gpusPerNode": 8, "memoryGiB": 48}]},
            "storage": {"readWriteOnce": {"className": "block"}},
            "use": {"scheduler": scheduler},
            "fineTuning": {"runtimes": [{"name": "hf"}], "namespaces": NAMESPACES},
        }
    )
    return resolve(environment, catalog(environment), pins())


def rendered(scheduler: str, kind: str) -> dict[tuple[str, str], Json]:
    """Objects of a kind by namespace and name."""
    build = next(component.objects for component in OURS if component.name == "fine-tuning")
    assert build
    return {
        (entry["metadata"].get("namespace", ""), entry["metadata"]["name"]): entry["spec"]
        for entry in build(stack(scheduler))
        if entry["kind"] == kind
    }


def test_a_job_that_names_no_queue_gets_the_one_of_its_namespace() -> None:
    assert rendered("kueue", "LocalQueue") == {
        ("team-a", "default"): {"clusterQueue": "team-a"},
        ("team-b", "default"): {"clusterQueue": "team-b"},
    }


@pytest.mark.parametrize("scheduler", ["volcano", "kube-scheduler"])
def test_no_queue_is_rendered_that_no_job_uses(scheduler: str) -> None:
    for kind in ("Queue", "LocalQueue", "ClusterQueue", "ResourceFlavor"):
        assert rendered(scheduler, kind) == {}


def test_what_is_lent_comes_back() -> None:
    queues = rendered("kueue", "ClusterQueue")
    assert {name: spec["cohortName"] for (_, name), spec in queues.items()} == {
        "team-a": "fine-tuning",
        "team-b": "fine-tuning",
    }
    assert all(spec["preemption"] == {"reclaimWithinCohort": "Any"} for spec in queues.values())


@pytest.mark.parametrize(
    ("scheduler", "gpus"), [("kueue", ["8", "8"]), ("volcano", ["3", "5"]), ("kube-scheduler", ["3", "5"])]
)
def test_a_quota_refuses_nothing_that_is_lent(scheduler: str, gpus: list[str]) -> None:
    quotas = rendered(scheduler, "ResourceQuota").values()
    assert [spec["hard"]["requests.nvidia.com/gpu"] for spec in quotas] == gpus


def test_served_models_wait_in_no_queue() -> None:
    here = stack("kueue")
    kueue = here.component("kueue")
    assert kueue
    text = derived_values(here, kueue)["managerConfig"]["controllerManagerConfigYaml"]
    assert load(text).value["integrations"] == {"frameworks": ["batch/job"]}
