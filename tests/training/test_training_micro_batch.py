# SPDX-License-Identifier: Apache-2.0
"""A training that ran out of memory goes on with fewer sequences at a time, as the same training."""

import pytest
from tuneyard_api.planner import digest_of, smaller_micro_batch
from tuneyard_api.pod_contract import ENV_GRADIENT_CHECKPOINTING, ENV_MICRO_BATCH, Stage
from tuneyard_trainer.pod.environment import PodEnvironment, as_chosen
from tuneyard_trainer.run_stage import run_stage
from tuneyard_trainer.workspace.metrics import read_metrics


@pytest.mark.parametrize(
    ("micro", "accumulation", "smaller"),
    [(8, 1, 4), (6, 1, 3), (3, 2, 1), (5, 2, 2), (2, 3, 1), (1, 8, None)],
)
def test_half_as_many_or_what_divides(micro, accumulation, smaller):
    assert smaller_micro_batch(micro, accumulation) == smaller


def chosen(job, variables):
    return as_chosen(job, PodEnvironment.of(variables))


def test_the_global_batch_stays(job_of, model_files, training_data):
    job = job_of(model_files, training_data(4))
    smaller = chosen(job, {ENV_MICRO_BATCH: "1"})
    assert (smaller.training.micro_batch_size, smaller.training.gradient_accumulation) == (1, 4)
    assert chosen(job, {}) == job
    assert smaller.model_copy(update={"training": job.training}) == job, "nothing else changes"
    with pytest.raises(ValueError, match="4 sequences are no multiple of 3"):
        chosen(job, {ENV_MICRO_BATCH: "3"})


@pytest.mark.parametrize("said", ["true", "false"])
def test_gradient_checkpointing_is_the_pods(job_of, model_files, training_data, said):
    job = job_of(model_files, training_data(4))
    switched = chosen(job, {ENV_GRADIENT_CHECKPOINTING: said})
    assert switched.training.gradient_checkpointing == (said == "true")
    assert digest_of(chosen(job, {ENV_GRADIENT_CHECKPOINTING: "false"})) == digest_of(job)


@pytest.fixture
def job(job_of, tiny_llama, training_data):
    return job_of(tiny_llama, training_data(40))


@pytest.mark.torch
def test_a_training_with_a_smaller_micro_batch_is_the_same_training(job, tmp_path, pods, monkeypatch):
    module = pytest.importorskip("tuneyard_trainer.training.losses")
    sizes, real = [], module.summed_loss

    def counted(model, batch, device):
        sizes.append(len(batch.tokens))
        return real(model, batch, device)

    losses = {}
    for size in ("", "1"):
        (tmp_path / f"with-{size}").mkdir()
        place = type(pods)(tmp_path / f"with-{size}")
        assert place.run("prepare", job)[0] == 0
        place.give(job)
        with monkeypatch.context() as patch:
            patch.setattr(module, "summed_loss", counted)
            sizes.clear()
            assert run_stage(Stage.TRAIN, PodEnvironment.of(place.environ() | {ENV_MICRO_BATCH: size})) == 0
        assert max(sizes) == (1 if size else 2)
        assert place.result().plan_digest == digest_of(job)
        losses[size] = [
            line["loss"] for line in read_metrics(place.workspace / "metrics.jsonl") if "loss" in line
        ]
    assert len(losses["1"]) == 4
    assert losses["1"] == pytest.approx(losses[""], abs=1e-4)
