# SPDX-License-Identifier: Apache-2.0
"""The report on a job shows token by token what was learned: the very tokens that prepare kept for training."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tuneyard_data.loading import Reading, hold_out, load_splits
from tuneyard_data.records import DataFile
from tuneyard_data.shown_tokens import LEARNED, MAX_RECORDS, MAX_TOKENS, Learned, learned_of, shown_tokens
from tuneyard_data.tokenization import TextTokenizer
from tuneyard_trainer.workspace.layout import PREPARED
from tuneyard_trainer.workspace.prepared import Split

MODEL = Path(__file__).parents[2] / "examples" / "models" / "tiny-llama"
MARKUP = '<script>alert("x")</script> & \x1b[31m ⟧```'
SPAN = re.compile(r'<span class="(token|token learned)">(.*?)</span>', re.DOTALL)


@pytest.fixture
def report(trained, pods, tmp_path):
    """Publishes a trained workspace; returns the report as a page and as Markdown."""

    def build(*, is_old: bool = False, **changes: Any) -> tuple[str, str]:
        job = trained(**changes)
        if is_old:
            (pods.workspace / PREPARED / LEARNED).unlink()
        code, result = pods.run("publish", job)
        assert code == 0, result.failure
        folder = tmp_path / "registry/demo-adapter"
        return (folder / "report.html").read_text(), (folder / "report.md").read_text()

    return build


def loaded(tmp_path: Path, records: list[Any], data_format: str = "auto", limit: int = 2048):
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    tokenizer = TextTokenizer(MODEL)
    reading = Reading(format=data_format, limit=limit, folder=tmp_path)
    files = [DataFile("training", file, "train.jsonl")]
    return load_splits(reading, files, tokenizer, lambda _: None), tokenizer


def spans_of(page: str) -> list[list[tuple[str, bool]]]:
    """The boxes of each shown record."""
    shown = re.findall(r'<div class="tokens">(.*?)</div>', page, re.DOTALL)
    return [[(unescape(text), "learned" in style) for style, text in SPAN.findall(part)] for part in shown]


def test_the_shown_tokens_are_those_that_training_reads(report, pods, model_files):
    page, text = report(
        records=[{"prompt": f"say {n} é", "completion": f" it is {n}\nso"} for n in range(12)]
    )
    kept = Split.load(pods.workspace / PREPARED / "training.safetensors")
    tokenizer = TextTokenizer(model_files)
    records = {}
    for first, end in zip(kept.records[:-1], kept.records[1:], strict=True):
        learned = kept.learned[first:end].astype(bool)
        learned[0] = False
        boxes = [each.replace("\n", "↵\n") for each in tokenizer.texts_of(kept.tokens[first:end].tolist())]
        records["".join(boxes)] = list(zip(boxes, learned.tolist(), strict=True))
    shown = spans_of(page)
    assert len(shown) == MAX_RECORDS
    for boxes in shown:
        assert boxes == records["".join(each for each, _ in boxes)]
        assert "".join(each for each, is_learned in boxes if is_learned).startswith(" it is ")
    assert text.count("⟦ it is ") == MAX_RECORDS + 1, "one more in what the data report shows"


def test_markup_in_tokens_means_nothing(report):
    page, text = report(records=[{"prompt": f"{n} {MARKUP}", "completion": f" {MARKUP}"} for n in range(8)])
    shown = "".join(each for each, _ in spans_of(page)[0])
    assert MARKUP.replace("\x1b", "\N{REPLACEMENT CHARACTER}") in shown
    for content in (page, text):
        assert "\x1b" not in content
    assert "<script" not in page


def test_work_that_an_earlier_version_prepared_has_a_report_too(report):
    for content in report(is_old=True):
        assert "No record may be shown, or none was kept." in content


def test_records_with_a_hint_at_personal_data_are_not_shown(tmp_path):
    records = [{"prompt": f"who is {n}?", "completion": f"jane{n}@mail.example.org"} for n in range(3)]
    splits, tokenizer = loaded(tmp_path, [*records, {"prompt": "a", "completion": "b"}])
    [shown] = learned_of(splits["training"], tokenizer).records
    assert shown.place == "train.jsonl:4:1"


def test_records_that_are_held_out_are_not_shown(tmp_path, job_of, model_files):
    records = [{"prompt": f"number {n}", "completion": f" {n * n}"} for n in range(10)]
    splits, tokenizer = loaded(tmp_path, records)
    job = job_of(model_files, tmp_path / "train.jsonl", dataset={"validationFraction": 0.8})
    splits = hold_out(splits, job)
    training = splits["training"]
    shown = learned_of(training, tokenizer).records
    assert [each.place for each in shown] == [f"train.jsonl:{index + 1}:1" for index in training.chosen]
    for index, each in enumerate(shown):
        assert "".join(each.texts) == tokenizer.decode_all(training.read(index).tokens.tolist())


def test_both_answers_of_a_preference_are_shown(tmp_path):
    records = [{"prompt": f"{n}?", "chosen": f" yes {n}", "rejected": f" no {n}"} for n in range(5)]
    splits, tokenizer = loaded(tmp_path, records, "preference")
    shown = learned_of(splits["training"], tokenizer).records
    assert [(each.place[-3:], each.side) for each in shown] == [
        ("1:1", "chosen"), ("1:1", "rejected"), ("2:1", "chosen"), ("2:1", "rejected"),
    ]  # fmt: skip
    assert ["⟦ yes 0" in shown[0].marked(), "⟦ no 0" in shown[1].marked()] == [True, True]


def test_a_long_record_is_shown_where_it_begins_to_be_learned(tmp_path):
    records = [
        {"prompt": "word " * 1500, "completion": " end " * 900},
        {"prompt": "a", "completion": "b " * 900},
    ]
    splits, tokenizer = loaded(tmp_path, records, limit=2000)
    long, short = learned_of(splits["training"], tokenizer).records
    whole = splits["training"].read(0)
    assert (len(long.texts), short.before) == (MAX_TOKENS, 0)
    assert long.before == whole.first_learned - 100
    assert long.before + len(long.texts) + long.behind == whole.full_length > len(whole.tokens)
    assert np.array_equal(long.learned, whole.learned[long.before : long.before + MAX_TOKENS])
    assert long.learned.index(True) == 100
    expected = tokenizer.texts_of(whole.tokens[: long.before + MAX_TOKENS].tolist())[long.before :]
    assert list(long.texts) == expected
    assert len(Learned(records=(long,) * MAX_RECORDS).content()) < 100_000


def test_the_first_token_is_never_learned_as_nothing_precedes_it(tmp_path):
    splits, tokenizer = loaded(tmp_path, [{"text": "Any text."}])
    [shown] = learned_of(splits["training"], tokenizer).records
    assert shown.learned == (False, *(True,) * (len(shown.texts) - 1))
    assert shown == shown_tokens(shown.place, splits["training"].read(0), tokenizer)
