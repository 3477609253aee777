# SPDX-License-Identifier: Apache-2.0
"""Public benchmarks: lm-evaluation-harness and our loss agree, base and tuned model are both asked, bad records cost no GPU."""

import json
import math
import re
import socket
from pathlib import Path

import numpy as np
import pytest
from tuneyard_api.benchmarks import Benchmarks
from tuneyard_api.pod_contract import EXIT_CODES, FailureClass, TrainFacts

torch = pytest.importorskip("torch")
pytest.importorskip("lm_eval")

from tuneyard_trainer.evaluation.benchmarks import Asked, ask, compare_asked  # noqa: E402
from tuneyard_trainer.evaluation.language_model import TrainedModel  # noqa: E402
from tuneyard_trainer.model.world import World  # noqa: E402
from tuneyard_trainer.workspace.benchmarks import keep_benchmarks  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings(
        "ignore:.*is_gradient_checkpointing.*:FutureWarning"
    ),  # PEFT 0.21, transformers 5
]

PROBLEM = {"question": "What runs?", "answer": "B", "options": ["a cat", "a fox", "rain", "a ship"]}
RECORDS = {
    "lambada": [{"text": "the dog saw the cat"}, {"text": "seven ships left the harbour"}],
    "boolq": [{"passage": "The cat sleeps.", "question": "does the cat sleep", "label": 1}],
    "race": [{"article": "A red fox runs.", "problems": str([PROBLEM, PROBLEM])}],
    "piqa": [{"goal": "see the cat", "sol1": "look at the cat", "sol2": "look away from it", "label": 0}],
    "hellaswag": [
        {
            "activity_label": "Running",
            "ctx_a": "A red fox runs.",
            "ctx_b": "it",
            "endings": ["sleeps", "runs on and on", "is rain", "left"],
            "label": "1",
        }
    ],
    "winogrande": [
        {"sentence": "The cat saw the dog as _ ran.", "option1": "cat", "option2": "dog", "answer": "2"}
    ],
    "wikitext": [{"page": " = The cat = \n the cat saw the dog , and ran . \n" * 40}],
}


@pytest.fixture
def folder(tmp_path):
    found = tmp_path / "benchmarks"
    found.mkdir()
    for name, records in RECORDS.items():
        lines = (json.dumps(record) + "\n" for record in records)
        (found / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return found


@pytest.fixture
def kept(folder, tmp_path):
    """The workspace of all benchmarks."""
    wanted = Benchmarks.model_validate({"names": list(RECORDS), "pvc": {"claimName": "benchmarks"}})
    (tmp_path / "prepared").mkdir()
    keep_benchmarks(wanted, folder, tmp_path / "prepared/benchmarks")
    return wanted, tmp_path


@pytest.fixture(scope="module")
def base(tiny_llama):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(tiny_llama).eval(), AutoTokenizer.from_pretrained(tiny_llama)


def ours(base, **options):
    model, tokenizer = base
    longest = {"longest": model.config.max_position_embeddings} | options
    return TrainedModel(model, tokenizer, device=torch.device("cpu"), world=World(), **longest)


def test_every_benchmark_scores_as_with_the_model_of_the_harness(base, kept, monkeypatch):
    from lm_eval.models.huggingface import HFLM

    def no_network(*_):
        raise AssertionError("a network is asked")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    wanted, workspace = kept
    model, tokenizer = base
    longest = min(model.config.max_position_embeddings, 2048)
    theirs = ask(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2, max_length=longest), wanted, workspace
    )
    mine = ask(ours(base), wanted, workspace)
    assert list(mine) == list(RECORDS)
    for name, asked in mine.items():
        assert asked.totals == pytest.approx(theirs[name].totals, rel=1e-4), name
        for metric, values in asked.each.items():
            assert np.allclose(values, theirs[name].each[metric], rtol=1e-4), (name, metric)


def test_log_likelihood_of_the_harness_is_our_loss(  # noqa: PLR0917
    tiny_llama, jsonl, job_of, pods, base, tmp_path
):
    """The same prompts and completions, by the harness's own way from text to tokens and by the evaluation of a job."""
    from lm_eval.api.instance import Instance

    data = jsonl([{"prompt": f"say number {n} =", "completion": " the cat"} for n in range(40)])
    held_out = [
        ("say number seven =", " the cat ran"),
        ("the dog saw", " rain"),
        ("a red fox", " left the ship"),
    ]
    test = tmp_path / "test.jsonl"
    lines = (
        json.dumps({"prompt": prompt, "completion": completion}) + "\n" for prompt, completion in held_out
    )
    test.write_text("".join(lines), encoding="utf-8")
    job = job_of(tiny_llama, data, dataset={"test": {"path": str(test)}}, training={"maxSteps": 1})
    assert pods.run("prepare", job)[0] == 0
    code, result = pods.run("train", job)
    assert code == 0, result.failure
    lm = ours(base)
    # A record ends with the token that ends an answer, and learns it.
    asked = [
        Instance("loglikelihood", {}, (prompt, completion + base[1].eos_token), number)
        for number, (prompt, completion) in enumerate(held_out)
    ]
    total = sum(value for value, _ in lm.loglikelihood(asked, disable_tqdm=True))
    tokens = sum(len(lm._encode_pair(*each.args)[1]) for each in asked)
    loss = TrainFacts.model_validate(result.facts).evaluation.base.loss
    assert -total / tokens == pytest.approx(loss, abs=1e-3)


def test_a_text_longer_than_the_model_is_read_in_windows(base):
    from lm_eval.api.instance import Instance

    text = "the cat saw the dog " * 30
    short, long = (
        ours(base, longest=length).loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])[
            0
        ]
        for length in (16, 1024)
    )
    assert math.isfinite(short)
    assert short != pytest.approx(long, rel=1e-6)


def test_base_and_tuned_model_are_asked(tiny_llama, jsonl, job_of, pods, folder):
    data = jsonl([{"prompt": f"the dog {n} saw the", "completion": " cat"} for n in range(20)])
    benchmarks = {"names": ["lambada", "wikitext"], "pvc": {"claimName": "benchmarks"}, "limit": 2}
    job = job_of(
        tiny_llama,
        data,
        training={"maxSteps": 12, "learningRate": 0.02},
        evaluation={"benchmarks": benchmarks},
        benchmarksPath=str(folder),
    )
    code, result = pods.run("prepare", job)
    assert code == 0, result.failure
    code, result = pods.run("train", job)
    assert code == 0, result.failure
    found = TrainFacts.model_validate(result.facts).evaluation.benchmarks
    assert [(each.name, each.metric, each.documents) for each in found] == [
        ("lambada", "acc", 2),
        ("lambada", "perplexity", 2),
        ("wikitext", "word_perplexity", 1),
    ]
    assert found[1].base != found[1].tuned
    assert found[1].base_low <= found[1].base <= found[1].base_high
    assert all(each.records_digest.startswith("sha256:") for each in found)
    code, result = pods.run("publish", job)
    assert code == 0, result.failure
    report = (Path(result.facts["path"]) / "report.md").read_text(encoding="utf-8")
    assert "## Public benchmarks" in report
    assert f"| lambada perplexity, 2 records | {found[1].base:.4f} (" in report
    assert "not the scores that people quote" in report


BROKEN = {
    "lambada": ({"text": "word"}, "text of two words at least"),
    "boolq": ({"passage": "a", "question": "b", "label": True}, "label of boolq is 0 or 1 \\(got True\\)"),
    "race": (
        {"article": "a", "problems": "__import__('os').abort()"},
        "problems of race is a string with a list",
    ),
    "piqa": ({"goal": "a", "sol1": "b", "label": 0}, "sol2 of piqa is text \\(got no such column\\)"),
    "hellaswag": (RECORDS["hellaswag"][0] | {"label": ""}, "label of hellaswag is 0 to 3"),
    "winogrande": (RECORDS["winogrande"][0] | {"answer": ""}, "answer of winogrande is the string"),
    "wikitext": ([], "a record is an object \\(got list\\)"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_record_that_cannot_be_asked_is_refused_in_prepare(  # noqa: PLR0917
    name, tiny_llama, jsonl, job_of, pods, folder
):
    record, message = BROKEN[name]
    with (folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    data = jsonl([{"prompt": f"say {n}", "completion": " the cat"} for n in range(40)])
    wanted = {"benchmarks": {"names": [name], "pvc": {"claimName": "benchmarks"}}}
    job = job_of(tiny_llama, data, evaluation=wanted, benchmarksPath=str(folder))
    code, result = pods.run("prepare", job)
    assert code == EXIT_CODES[FailureClass.BAD_INPUT]
    assert re.search(f"{name}.jsonl:{len(RECORDS[name]) + 1}: .*{message}", result.failure.message)


def test_a_file_that_is_not_there_is_named(tiny_llama, jsonl, job_of, pods, tmp_path):
    data = jsonl([{"prompt": f"say {n}", "completion": " the cat"} for n in range(40)])
    wanted = {"benchmarks": {"names": ["piqa"], "pvc": {"claimName": "benchmarks"}}}
    job = job_of(tiny_llama, data, evaluation=wanted, benchmarksPath=str(tmp_path))
    code, result = pods.run("prepare", job)
    assert code == EXIT_CODES[FailureClass.DATA_MISSING]
    assert "piqa.jsonl: No such file or directory" in result.failure.message


def test_intervals_hold_what_is_known():
    hits = [(1.0, 1.0)] * 30 + [(0.0, 1.0)] * 70
    better = [(1.0, 1.0)] * 50 + [(0.0, 1.0)] * 50
    words = [(-20.0 - n % 5, 10.0) for n in range(100)]
    before = {
        "piqa": Asked("d", {"acc": 0.3}, {"acc": hits}),
        "wikitext": Asked("d", {"word_perplexity": math.exp(2.2)}, {"word_perplexity": words}),
    }
    after = {"piqa": Asked("d", {"acc": 0.5}, {"acc": better}), "wikitext": before["wikitext"]}
    acc, perplexity = compare_asked(before, after)
    assert (acc.base_low, acc.base_high) == pytest.approx((0.2190, 0.3958), abs=1e-4)  # Wilson
    assert 0.1 < acc.gain_low < 0.2 < acc.gain_high < 0.3
    assert perplexity.base_low < math.exp(2.2) < perplexity.base_high
    assert (perplexity.gain_low, perplexity.gain_high) == (0.0, 0.0)
