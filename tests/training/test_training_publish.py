# SPDX-License-Identifier: Apache-2.0
"""Publishing: whole, once, and never over another adapter; without PyTorch."""

import pytest
from tuneyard_api.planner import digest_of
from tuneyard_api.pod_contract import (
    EXIT_CODES,
    EvaluationFacts,
    FailureClass,
    PublishFacts,
    Scores,
    Stage,
    StageResult,
    TrainFacts,
)
from tuneyard_trainer.pod.results import write_result

SCORES = {
    who: Scores(loss=loss, perplexity=9.0, exact_match=0.5, rouge_l=0.25, prompts=8)
    for who, loss in (("base", 3.5), ("tuned", 1.25))
}


@pytest.fixture
def trained(jsonl, model_files, job_of, pods):
    """A workspace as train leaves it; returns the job."""
    pytest.importorskip("matplotlib")

    def build(content=b"weights", **changes):
        job = job_of(
            model_files, jsonl([{"prompt": f"{n}", "completion": f" {n}"} for n in range(8)]), **changes
        )
        assert pods.run("prepare", job)[0] == 0
        adapter = pods.workspace / "adapter"
        adapter.mkdir(exist_ok=True)
        (adapter / "adapter_config.json").write_text("{}")
        (adapter / "adapter_model.safetensors").write_bytes(content)
        (pods.workspace / "metrics.jsonl").write_text(
            '{"step": 1, "loss": 2.5}\n{"step": 1, "validationLoss": 2.0}\n'
        )
        facts = TrainFacts(
            steps=4,
            epochs=1.0,
            final_loss=2.5,
            trained_tokens=100,
            tokens_per_second=10.0,
            seconds=10.0,
            peak_memory_bytes=1,
            evaluation=EvaluationFacts(**SCORES),
        )
        result = StageResult(
            stage=Stage.TRAIN,
            outcome="Succeeded",
            plan_digest=digest_of(job),
            facts=facts.model_dump(mode="json"),
        )
        write_result(result, pods.workspace, pods.log)
        return job

    return build


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def again(pods, job):
    (pods.workspace / "results/publish.json").unlink(missing_ok=True)
    return pods.run("publish", job)


def test_adapter_appears_with_card_and_picture_and_nothing_else(trained, pods, tmp_path):
    code, result = pods.run("publish", trained())
    assert code == 0
    facts = PublishFacts.model_validate(result.facts)
    registry = tmp_path / "registry"
    assert names_in(registry) == ["demo-adapter"]
    assert names_in(registry / "demo-adapter") == [
        ".published-by",
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "loss.png",
    ]
    assert facts.size_bytes == 2 + 7
    assert (registry / "demo-adapter/loss.png").read_bytes().startswith(b"\x89PNG")
    card = (registry / "demo-adapter/README.md").read_text()
    for part in (
        facts.digest,
        "| loss, nats per learned token | 3.5000 | 1.2500 |",
        "base_model: base",
        "![Loss",
    ):
        assert part in card


def test_publishing_again_changes_nothing(trained, pods, tmp_path):
    job = trained()
    first = pods.run("publish", job)[1].facts
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "registry").rglob("*")}
    code, result = again(pods, job)
    assert (code, result.facts) == (0, first)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "registry").rglob("*")} == before


def test_who_published_it_is_marked_and_so_is_a_second_job_with_the_same(trained, pods, tmp_path):
    assert pods.run("publish", trained())[0] == 0
    marks = tmp_path / "registry/demo-adapter/.published-by"
    assert names_in(marks) == ["1"]
    assert again(pods, trained(uid="2"))[0] == 0
    assert names_in(marks) == ["1", "2"]


def test_an_adapter_that_is_taken_back_in_the_very_moment_is_published_again(
    trained, pods, tmp_path, monkeypatch
):
    from tuneyard_trainer.registry import publishers
    from tuneyard_trainer.stages import publish
    from tuneyard_trainer.stages.unpublish import unpublish

    assert pods.run("publish", trained())[0] == 0
    target = tmp_path / "registry/demo-adapter"

    def late(folder, uid):
        unpublish(folder, "1")
        publishers.sign_too(folder, uid)

    monkeypatch.setattr(publish, "sign_too", late)
    assert again(pods, trained(uid="2"))[0] == 0
    assert names_in(target / ".published-by") == ["2"]
    assert (target / "adapter_model.safetensors").read_bytes() == b"weights"


def test_another_adapter_of_the_name_is_never_overwritten(trained, pods, tmp_path):
    assert pods.run("publish", trained())[0] == 0
    code, result = again(pods, trained(content=b"others!"))
    assert code == EXIT_CODES[FailureClass.ADAPTER_CONFLICT]
    assert "the name is taken by another adapter" in result.failure.message
    assert (tmp_path / "registry/demo-adapter/adapter_model.safetensors").read_bytes() == b"weights"


def test_foreign_folder_of_the_name_is_a_conflict(trained, pods, tmp_path):
    (tmp_path / "registry/demo-adapter").mkdir(parents=True)
    (tmp_path / "registry/demo-adapter/mine.txt").write_text("keep")
    code, result = pods.run("publish", trained())
    assert code == EXIT_CODES[FailureClass.ADAPTER_CONFLICT]
    assert "there is no whole adapter" in result.failure.message
    assert (tmp_path / "registry/demo-adapter/mine.txt").read_text() == "keep"


def test_left_over_of_a_killed_publish_is_removed(trained, pods, tmp_path):
    torn = tmp_path / "registry/.demo-adapter.tmp-7"
    torn.mkdir(parents=True)
    (torn / "adapter_config.json").write_text("{")
    assert pods.run("publish", trained())[0] == 0
    assert names_in(tmp_path / "registry") == ["demo-adapter"]


def test_failing_in_the_middle_leaves_nothing(trained, pods, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("card")

    monkeypatch.setattr("tuneyard_trainer.stages.publish.render_card", fail)
    assert pods.run("publish", trained())[0] == EXIT_CODES[FailureClass.BUG]
    assert names_in(tmp_path / "registry") == []


def test_digest_knows_names_and_contents(trained, pods):
    from tuneyard_trainer.stages.publish import tuned_digest

    folder = pods.workspace / "adapter"
    trained()
    first = tuned_digest(folder)
    (folder / "adapter_config.json").write_text("{}w")
    (folder / "adapter_model.safetensors").write_bytes(b"eights")
    assert tuned_digest(folder) != first
    assert first.startswith("sha256:")


def test_without_training_there_is_nothing_to_publish(trained, pods):
    job = trained()
    (pods.workspace / "results/train.json").unlink()
    code, result = pods.run("publish", job)
    assert code == EXIT_CODES[FailureClass.BAD_INPUT]
    assert "run stage train first" in result.failure.message
