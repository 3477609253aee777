# SPDX-License-Identifier: Apache-2.0
"""What status shows of a training while it runs, and how seldom it is written."""

import pytest
from support.samples import TRAIN_FACTS, result_text
from support.world.world import World
from tuneyard_api.pod_contract import Progress, Stage, TrainFacts, TrainingMeasures
from tuneyard_operator.domain.progress import measured


def test_progress_is_read_from_the_pod_and_written_only_when_the_step_moved() -> None:
    world = World()
    world.settle()
    world.carry_out(Stage.PREPARE)
    world.progress.answer = Progress(
        stage=Stage.TRAIN,
        phase="training",
        step=10,
        of=40,
        loss=2.5,
        tokens_per_second=800.0,
        eta_seconds=200,
    )
    world.run_pod(world.make_pod("a-train-1"))
    world.settle()
    assert world.progress.asked == ["http://10.0.0.9:9470/progress"]
    progress = world.status.progress
    assert progress is not None
    assert (progress.step, progress.of, progress.percent, progress.loss, progress.eta) == (
        10,
        40,
        25,
        2.5,
        "3m20s",
    )
    writes = world.cluster.calls.count("patch status")
    world.advance(5)
    world.one_pass()
    assert len(world.progress.asked) == 1, "at most every ten seconds"
    world.advance(10)
    world.one_pass()
    assert len(world.progress.asked) == 2
    assert world.cluster.calls.count("patch status") == writes, "the step has not moved"
    world.progress.answer = world.progress.answer.model_copy(update={"step": 20, "eta_seconds": None})
    world.advance(10)
    world.one_pass()
    assert world.status.progress is not None
    assert (world.status.progress.step, world.status.progress.eta) == (20, None)


def test_what_the_training_measures_is_shown_as_soon_as_it_is_known_and_costs_no_write() -> None:
    """The numbers come with a step that is written anyway; at the end they are those of the whole training."""
    world = World()
    world.settle()
    world.carry_out(Stage.PREPARE)
    pod = world.make_pod("a-train-1")
    world.run_pod(pod)
    world.settle()
    writes = world.cluster.calls.count("patch status")
    first = TrainingMeasures(trained_tokens=512, tokens_per_second=812.345, peak_memory_bytes=700)
    validated = first.model_copy(update={"validation_loss": 1.987654, "best_step": 10})
    seen = []
    for phase, step, measures in (
        ("evaluating", 32, None),
        ("training", 3, first),
        ("training", 3, validated),
        ("training", 4, validated),
        ("training", 5, None),
    ):
        world.progress.answer = Progress(stage=Stage.TRAIN, phase=phase, step=step, of=40, training=measures)
        world.advance(10)
        world.one_pass()
        shown = world.status.training
        seen.append((shown.trained_tokens, shown.validation_loss, shown.best_step) if shown else None)
    assert seen == [None, (512, None, None), (512, None, None), (512, 1.988, 10), (512, 1.988, 10)]
    assert world.status.training is not None
    assert world.status.training.tokens_per_second == 812.3
    steps_that_moved = 4
    assert world.cluster.calls.count("patch status") == writes + steps_that_moved
    facts = TRAIN_FACTS | {"validationLoss": 1.5, "bestStep": 30}
    world.end_pod(pod, message=result_text(Stage.TRAIN, world.digest, facts=facts))
    world.settle()
    assert world.status.training.model_dump() == {
        "validationLoss": 1.5,
        "bestStep": 30,
        "trainedTokens": 20000,
        "tokensPerSecond": 1000.0,
        "peakMemoryBytes": 1000,
    }


@pytest.mark.parametrize(("loss", "step"), [(1.5, 40), (None, None)])
def test_the_best_step_is_the_last_one_where_no_other_is_published(
    loss: float | None, step: int | None
) -> None:
    measures = measured(TrainFacts.model_validate(TRAIN_FACTS | {"validationLoss": loss}))
    assert (measures.validation_loss, measures.best_step) == (loss, step)


def test_measurements_are_progress_before_the_training_and_not_within_it() -> None:
    world = World()
    world.settle()
    world.carry_out(Stage.PREPARE)
    world.run_pod(world.make_pod("a-train-1"))
    world.settle()
    seen = []
    for phase, step, of in (
        ("loading", 0, 0),
        ("evaluating", 32, 64),
        ("training", 3, 40),
        ("evaluating", 9, 64),
        ("checkpointing", 4, 40),
        ("training", 4, 40),
    ):
        world.progress.answer = Progress(stage=Stage.TRAIN, phase=phase, step=step, of=of)
        world.advance(10)
        world.one_pass()
        progress = world.status.progress
        seen.append(progress.text if progress else None)
    assert seen == [
        None,
        "evaluating 32/64 (50%)",
        "3/40 (7%)",
        "3/40 (7%)",
        "3/40 (7%)",
        "4/40 (10%)",
    ]
