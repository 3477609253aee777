# SPDX-License-Identifier: Apache-2.0
"""Every method has an example that runs where a server reads the runtime's adapters, and a way out where it can't be served."""

from pathlib import Path

import pytest
from tuneyard_api.job import FineTuneJob
from tuneyard_api.methods import METHODS, method_of
from tuneyard_api.planner import PlanRefused, make_plan
from tuneyard_api.runtime import FineTuneRuntime
from tuneyard_api.validate import load_job

EXAMPLES = Path(__file__).parents[2] / "examples/methods"
SERVING = FineTuneRuntime.model_validate(
    {
        "metadata": {"name": "hf-cpu"},
        "spec": {
            "image": "trainer:1",
            "accelerator": "none",
            "methods": [method.name for method in METHODS],
            "defaults": {"registry": {"claimName": "adapters"}},
            "servedModels": [
                {
                    "name": "small",
                    "base": {"pvc": {"claimName": "models", "path": "smollm2-135m-instruct"}},
                    "endpoint": "http://small",
                    "server": "vllm",
                }
            ],
        },
    }
)


def example(path: Path) -> FineTuneJob:
    return load_job(path.read_text(encoding="utf-8"), path.name)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_example_of_a_method_is_planned_and_served_only_if_its_result_is_an_adapter(path: Path) -> None:
    plan = make_plan(example(path), SERVING)
    is_adapter = plan.resolved.kind.result == "adapter"
    assert (plan.destination is not None) is is_adapter
    assert (plan.registry_claim == "adapters") is is_adapter


def test_every_method_but_lora_has_an_example_and_lora_one_with_dora() -> None:
    shown = [make_plan(example(path), SERVING).resolved for path in EXAMPLES.glob("*.yaml")]
    assert {job.method for job in shown} == {method.name for method in METHODS}
    assert [job.lora.dora for job in shown if job.method == "lora"] == [True]


REFUSED = {
    "ia3 at a server of adapters": (
        "ia3",
        {"serve": {"model": "small"}},
        [
            (
                "spec.serve: method ia3 publishes a whole model, which a server of adapters does not load (got small); try"
                " the address of a server that is started on the published folder, or leave serve out"
            )
        ],
    ),
    "virtual tokens at a server of adapters": (
        "p-tuning",
        {"serve": {"model": "small"}},
        [
            (
                "spec.serve: method pTuning publishes virtual tokens, which neither vLLM nor NIM loads (got small); try"
                " leaving serve out, or method lora"
            )
        ],
    ),
    "virtual tokens at a server of one's own": (
        "p-tuning",
        {"serve": {"endpoint": "http://own"}},
        [
            (
                "spec.serve: method pTuning publishes virtual tokens, which neither vLLM nor NIM loads (got http://own);"
                " try leaving serve out, or method lora"
            )
        ],
    ),
    "virtual tokens among adapters": (
        "p-tuning",
        {"publish": {}},
        [
            (
                "spec.publish: method pTuning publishes virtual tokens, and the registry of runtime hf-cpu is read by small"
                " for adapters (got claim adapters); try publish.pvc with a claim for prompts"
            )
        ],
    ),
    "virtual tokens on two GPUs": (
        "p-tuning",
        {"parallelism": {"gpusPerNode": 2}},
        [
            (
                "spec.parallelism: method pTuning trains on one GPU (got 2); try gpusPerNode 1 and nodes 1, or method"
                " lora"
            )
        ],
    ),
}


@pytest.mark.parametrize(("name", "changes", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_can_not_be_is_refused_with_a_way_out(
    name: str, changes: dict[str, object], said: list[str]
) -> None:
    job = example(EXAMPLES / f"{name}.yaml")
    spec = job.spec.model_dump(mode="json", by_alias=True, exclude_none=True) | changes
    changed = FineTuneJob.model_validate({"metadata": {"name": "a"}, "spec": spec})
    with pytest.raises(PlanRefused) as refused:
        make_plan(changed, SERVING)
    assert [str(problem) for problem in refused.value.problems] == said


def test_a_serve_that_is_disabled_is_no_wish_for_a_server() -> None:
    job = example(EXAMPLES / "p-tuning.yaml")
    spec = job.spec.model_dump(mode="json", by_alias=True, exclude_none=True) | {"serve": {"disabled": True}}
    plan = make_plan(FineTuneJob.model_validate({"metadata": {"name": "a"}, "spec": spec}), SERVING)
    assert plan.destination is None
    assert plan.resolved.p_tuning is not None
    assert plan.resolved.p_tuning.virtual_tokens == 20


def test_a_method_of_another_image_is_taken_to_make_adapters() -> None:
    assert method_of("galore", dora=False).result == "adapter"
    assert method_of("galore", dora=True).result == "adapter"
