# SPDX-License-Identifier: Apache-2.0
"""The gate in the publish stage: what is missed is published nowhere, and a served version is compared by what it keeps."""

import json

import pytest
from tuneyard_api.evaluation_facts import EvaluationFacts, Scores
from tuneyard_api.job import Trial
from tuneyard_api.pod_contract import EXIT_CODES, FailureClass
from tuneyard_api.registry import read_version, version_path
from tuneyard_trainer.record.samples import read_trial

SERVED = {"mustNotRegress": {"served": {"loss": 0.1}}}
HELD_OUT = [{"prompt": f"held out {n}", "completion": f" {n}"} for n in range(4)]


def measured(loss, **scores):
    """Facts of a training whose tuned model has this loss."""
    base, tuned = (
        Scores(
            **{"loss": each, "perplexity": 9.0, "exact_match": 0.5, "rouge_l": 0.25, "prompts": 8} | scores
        )
        for each in (3.5, loss)
    )
    return {"evaluation": EvaluationFacts(base=base, tuned=tuned)}


def everything_in(folder):
    """Every path below a folder, and when it was written."""
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


def test_a_gate_that_is_missed_publishes_nothing_and_says_by_how_much(trained, pods, tmp_path):
    job = trained(facts=measured(1.25), evaluation={"gate": {"minimum": {"rougeL": 0.3}}})
    code, result = pods.run("publish", job)
    assert code == EXIT_CODES[FailureClass.GATE_FAILED] == 22
    assert result.failure.failure_class is FailureClass.GATE_FAILED
    assert result.failure.message == (
        "nothing is published, as evaluation.gate is not met: rougeL is 0.25, 0.05 below the minimum of 0.3"
    )
    assert everything_in(tmp_path / "registry") == {}


def test_a_version_keeps_how_it_was_measured(trained, pods, tmp_path):
    assert pods.run("publish", trained(facts=measured(1.25)))[0] == 0
    kept = read_version("demo-adapter", tmp_path / "registry/demo-adapter").evaluation
    assert (kept.facts.tuned.loss, kept.facts.base.loss) == (1.25, 3.5)
    assert kept.records_digest.startswith("sha256:")


def test_servers_are_tried_with_the_first_short_prompts_and_what_was_answered(trained, pods, tmp_path):
    job = trained(facts=measured(1.25))
    chat = [{"role": "user", "content": "hello"}]
    lines = [
        {
            "prompt": "p" * n,
            "reference": "r",
            "base": "b",
            "tuned": f"t{n}",
            "rougeLBase": 0.0,
            "rougeLTuned": 1.0,
        }
        for n in (3, 9000, 1, 2, 4, 5)
    ]
    lines[2]["messages"] = chat
    (pods.workspace / "evaluation").mkdir()
    (pods.workspace / "evaluation/samples.jsonl").write_text(
        "".join(json.dumps(each) + "\n" for each in lines)
    )
    assert pods.run("publish", job)[0] == 0
    trial = read_version("demo-adapter", tmp_path / "registry/demo-adapter").trial
    assert [(len(each.prompt), each.answer) for each in trial.questions] == [
        (3, "t3"),
        (1, "t1"),
        (2, "t2"),
        (4, "t4"),
    ]
    assert [each.messages and list(each.messages) for each in trial.questions] == [None, chat, None, None]
    assert (trial.max_new_tokens, trial.min_similarity) == (6, 0.5)


@pytest.mark.parametrize(("prompts", "kept"), [(1, 1), (0, None)])
def test_the_job_says_how_servers_are_tried(tmp_path, prompts, kept):
    line = {"prompt": "p", "reference": "r", "base": "b", "tuned": "t", "rougeLBase": 0.0, "rougeLTuned": 1.0}
    file = tmp_path / "samples.jsonl"
    file.write_text(2 * (json.dumps(line) + "\n"))
    trial = read_trial(file, Trial(prompts=prompts, min_similarity=0.9), 6)
    assert (trial and len(trial.questions)) == kept
    assert trial is None or trial.min_similarity == 0.9


def publish_after(trained, pods, tmp_path, loss, **changes):
    """Publishes a version of loss 1.0, and then asks for one of another loss in its place."""
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(each) + "\n" for each in HELD_OUT))
    test = {"dataset": {"test": {"path": str(tmp_path / "test.jsonl")}}}
    assert pods.run("publish", trained(facts=measured(1.0), **test))[0] == 0
    before = everything_in(tmp_path / "registry")
    if "records" in changes:
        (tmp_path / "test.jsonl").write_text(
            "".join(json.dumps(each) + "\n" for each in changes.pop("records"))
        )
    evaluation = {"gate": SERVED} | changes.pop("evaluation", {})
    new = {"content": b"another", "uid": "2", "replace": True, "evaluation": evaluation}
    outcome = pods.run("publish", trained(facts=measured(loss), **new, **test, **changes))
    return *outcome, before == everything_in(tmp_path / "registry")


def test_a_version_that_is_worse_than_the_served_one_leaves_it_served(trained, pods, tmp_path):
    code, result, is_untouched = publish_after(trained, pods, tmp_path, loss=1.2)
    assert (code, is_untouched) == (22, True)
    assert "loss is 1.2, 0.2 worse than the 1 of the version now served" in result.failure.message
    assert (tmp_path / "registry/demo-adapter/adapter_model.safetensors").read_bytes() == b"weights"


def test_a_version_that_is_hardly_worse_replaces_the_served_one(trained, pods, tmp_path):
    code, _, is_untouched = publish_after(trained, pods, tmp_path, loss=1.05)
    assert (code, is_untouched) == (0, False)
    now = read_version("demo-adapter", tmp_path / "registry/demo-adapter")
    before = read_version("demo-adapter", tmp_path / "registry" / version_path("demo-adapter", now.replaces))
    assert (before.evaluation.facts.tuned.loss, before.replaces) == (1.0, None)
    assert (tmp_path / "registry/demo-adapter/adapter_model.safetensors").read_bytes() == b"another"


def test_other_held_out_records_do_not_compare(trained, pods, tmp_path):
    code, result, is_untouched = publish_after(trained, pods, tmp_path, loss=0.5, records=HELD_OUT[:2])
    assert (code, is_untouched) == (22, True)
    assert "was measured on other held-out records" in result.failure.message


def test_longer_answers_do_not_compare(trained, pods, tmp_path):
    code, result, _ = publish_after(trained, pods, tmp_path, loss=0.5, evaluation={"maxNewTokens": 7})
    assert code == 22
    assert "was measured on other held-out records, prompts or lengths" in result.failure.message


def test_other_training_data_still_compare(trained, pods, tmp_path):
    code, _, _ = publish_after(trained, pods, tmp_path, loss=1.05, lora={"rank": 8})
    assert code == 0


def test_a_served_version_without_evaluation_is_not_replaced_unseen(trained, pods, tmp_path):
    assert pods.run("publish", trained(facts={"evaluation": None}))[0] == 0
    new = {"content": b"another", "uid": "2", "replace": True, "evaluation": {"gate": SERVED}}
    code, result = pods.run("publish", trained(facts=measured(0.5), **new))
    assert code == 22
    assert "keeps no evaluation to compare with" in result.failure.message


def test_what_says_of_itself_another_digest_is_not_believed(trained, pods, tmp_path):
    """A folder of a former release may hold a file of the name."""
    assert pods.run("publish", trained(facts=measured(1.0)))[0] == 0
    file = (tmp_path / "registry/demo-adapter/version.json").resolve()
    file.write_text(json.dumps(json.loads(file.read_text()) | {"digest": f"sha256:{'0' * 64}"}))
    new = {"content": b"another", "uid": "2", "replace": True, "evaluation": {"gate": SERVED}}
    code, result = pods.run("publish", trained(facts=measured(0.5), **new))
    assert code == 22
    assert "keeps no evaluation" in result.failure.message


def test_an_attempt_after_a_kill_is_not_compared_with_itself(trained, pods, tmp_path):
    """The version is there and its name stands for it, and only the result was lost."""
    job = trained(facts=measured(1.0), replace=True, evaluation={"gate": SERVED})
    assert pods.run("publish", job)[0] == 0
    (pods.workspace / "results/publish.json").unlink()
    assert pods.run("publish", job)[0] == 0


def test_a_gate_that_can_not_be_measured_is_refused_before_the_training(model_files, job_of, pods, tmp_path):
    (tmp_path / "text.jsonl").write_text("".join(f'{{"text": "some text {n}"}}\n' for n in range(8)))
    gate = {"minimum": {"rougeL": 0.1}, "maximum": {"loss": 9}}
    code, result = pods.run(
        "prepare", job_of(model_files, tmp_path / "text.jsonl", evaluation={"gate": gate})
    )
    assert code == EXIT_CODES[FailureClass.BAD_INPUT]
    assert result.failure.message.startswith(
        "evaluation.gate: rougeL can't be measured, as no held-out record has a prompt; try"
    )
