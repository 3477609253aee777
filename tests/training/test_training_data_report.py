# SPDX-License-Identifier: Apache-2.0
"""What prepare says of the data: lengths, repetitions, leaks, hints at personal data, and one record as it is learned."""

import json
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuneyard_api.pod_contract import EXIT_CODES, FailureClass, PrepareFacts
from tuneyard_data.near_duplicates import Keys, normalised, repeated, shared
from tuneyard_data.personal_data import hints_in, is_luhn

GOOD = [{"prompt": f"say number {n} =", "completion": f" {n % 7}"} for n in range(20)]
HINTS = {
    "an address": ("write to jane.doe+x@mail.example.org today", ["e-mail address"]),
    "two addresses": ("a@b.de and c@d.co.uk", ["e-mail address"] * 2),
    "a handle is no address": ("@jane wrote; a @ b; user@localhost", []),
    "a German number": ("call +49 30 1234567 now", ["phone number"]),
    "an American number": ("(555) 123-4567 or 555-123-4567", ["phone number"] * 2),
    "a date and a version are no number": ("2024-01-15, 10.2.3.4, 1.2.3, 192.168.100.200", []),
    "sums are no number": ("123-45=78 and 1000 2000 3000", []),
    "a card": ("4111 1111 1111 1111", ["card number"]),
    "a card in dashes": ("pay 5500-0000-0000-0004.", ["card number"]),
    "a card with a wrong digit": ("4111 1111 1111 1112", []),
    "zeros are no card": ("0000000000000000", []),
    "a key of Amazon": ("AKIAIOSFODNN7EXAMPLE", ["key or token"]),
    "a token of the hub": ("hf_" + "a" * 34, ["key or token"]),
    "a token of GitHub": ("ghp_" + "a1" * 18, ["key or token"]),
    "a private key": ("-----BEGIN RSA PRIVATE KEY-----\nMIIE", ["key or token"]),
    "a public key": ("-----BEGIN PUBLIC KEY-----", []),
    "a web token": (f"eyJ{'a' * 12}.eyJ{'b' * 12}.{'c' * 12}", ["key or token"]),
    "a word": ("task-force and sk-learn", []),
}


@pytest.mark.parametrize(("text", "kinds"), HINTS.values(), ids=HINTS.keys())
def test_hints_at_personal_data(text, kinds):
    assert list(hints_in(text)) == kinds


@given(st.text("0123456789", min_size=1, max_size=19))
def test_exactly_one_check_digit_fits(digits):
    """Luhn's: of ten numbers that differ in their last digit alone one is right."""
    assert sum(is_luhn(digits + last) for last in "0123456789") == 1


@given(st.text("0123456789", min_size=2, max_size=19), st.data())
def test_one_wrong_digit_is_noticed(digits, data):
    right = next(digits + last for last in "0123456789" if is_luhn(digits + last))
    at = data.draw(st.integers(0, len(right) - 1))
    other = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != right[at]]))
    assert not is_luhn(right[:at] + other + right[at + 1 :])


ALIKE = {
    "case": ("Hello World", "hello world", True),
    "white space": ("a  b\n\tc", "a b c", True),
    "punctuation": ("Yes, it is!", "yes it is", True),
    "typographic quotes": ("\u201ca\u201d", '"a"', True),
    "width": ("\uff21\uff22", "ab", True),
    "another word": ("a b", "a c", False),
    "another sum": ("3 + 4", "3 - 4", False),
    "another smiley": ("fine 👍", "fine 👎", False),
}


@pytest.mark.parametrize(("one", "other", "alike"), ALIKE.values(), ids=ALIKE.keys())
def test_what_counts_as_another_spelling(one, other, alike):
    assert (normalised(one) == normalised(other)) is alike


def keys_of(some):
    keys = Keys()
    keys.extend(some)
    return keys


@given(st.lists(st.sampled_from([b"a", b"b", b"c", b"d"])), st.lists(st.sampled_from([b"a", b"b"])))
def test_repeated_and_shared_records_are_counted_once_each(keys, others):
    pairs = repeated(keys_of(keys)).tolist()
    assert len(pairs) == len(keys) - len(set(keys))
    assert all(first < at and keys[first] == keys[at] for at, first in pairs)
    assert [at for at, _ in shared(keys_of(keys), keys_of(others)).tolist()] == [
        at for at, key in enumerate(keys) if key in others
    ]


@pytest.fixture
def prepare(model_files, job_of, pods, tmp_path):
    """Code, result and report of prepare on records by split."""

    def run(training, test=None, **dataset):
        for name, records in (("train", training), ("test", test or [])):
            lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
            (tmp_path / f"{name}.jsonl").write_text("".join(lines))
        if test:
            dataset["test"] = {"path": str(tmp_path / "test.jsonl")}
        job = job_of(
            model_files, tmp_path / "train.jsonl", dataset=dataset, training={"maxSequenceLength": 32}
        )
        code, result = pods.run("prepare", job)
        return code, result, json.loads((pods.workspace / "prepare-report.json").read_text())

    return run


def test_report_has_lengths_repetitions_and_one_record_as_it_is_learned(prepare, tmp_path, capsys):
    long = {"prompt": "x" * 20, "completion": "y" * 40}
    code, result, report = prepare([*GOOD, GOOD[3], {**GOOD[4], "prompt": "Say, number 4 ="}, long])
    assert code == 0
    training = report["splits"]["training"]
    file = str(tmp_path / "train.jsonl")
    assert (training["file"], training["records"]) == (file, 23)
    assert training["duplicates"] == {
        "exact": 1,
        "near": 1,
        "first": [
            {"place": f"{file}:21:1", "sameAs": f"{file}:4:1"},
            {"place": f"{file}:22:1", "sameAs": f"{file}:5:1"},
        ],
    }
    lengths = training["lengths"]
    assert (lengths["limit"], lengths["cut"], lengths["dropped"]) == (32, 1, 0)
    assert lengths["shortest"] <= lengths["median"] <= lengths["percentile95"] <= lengths["longest"]
    assert sum(part["records"] for part in lengths["histogram"]) == 23
    assert report["shown"]["place"] == f"{file}:1:1"
    assert "<s>say number 0 =⟦ 0</s>⟧" in report["shown"]["text"]
    facts = PrepareFacts.model_validate(result.facts)
    assert (facts.duplicate_records, facts.leaked_records, facts.personal_data_hints) == (1, 0, 0)
    log = capsys.readouterr().out
    assert f"training: {file}: 23 records of" in log
    assert f"duplicates: 1 exact, 1 in other spelling: {file}:21:1 is {file}:4:1" in log
    assert "<s>say number 0 =⟦ 0</s>⟧" in log


def test_histogram_is_without_gaps_and_holds_the_longest(prepare):
    lengths = prepare([{"prompt": "x" * n, "completion": "y"} for n in (1, 3, 9, 20, 25)])[2]["splits"][
        "training"
    ]["lengths"]
    bins = lengths["histogram"]
    assert all(one["atMost"] + 1 == other["atLeast"] for one, other in pairwise(bins))
    assert bins[0]["atLeast"] <= lengths["shortest"]
    assert lengths["longest"] <= bins[-1]["atMost"]


def test_personal_data_is_counted_by_place_and_never_repeated(prepare, pods, capsys):
    secrets = ["jane@mail.example.org", "4111 1111 1111 1111", "AKIAIOSFODNN7EXAMPLE"]
    personal = {"prompt": f"about {secrets[0]}", "completion": f"{secrets[1]} {secrets[2]}"}
    _, result, report = prepare([personal, *GOOD])
    assert {hint["kind"]: hint["count"] for hint in report["hints"]} == {
        "e-mail address": 1,
        "card number": 1,
        "key or token": 1,
    }
    assert all(hint["first"][0].endswith("train.jsonl:1:1") for hint in report["hints"])
    assert report["shown"]["place"].endswith("train.jsonl:2:1")
    facts = PrepareFacts.model_validate(result.facts)
    assert facts.personal_data_hints == 3
    assert facts.warnings[-1].startswith("the data may hold personal data or secrets: 1 x e-mail address")
    said = capsys.readouterr().out + json.dumps(report) + pods.log.read_text()
    assert not [secret for secret in secrets if secret in said]


def test_leak_is_counted_exactly_and_nearly(prepare):
    other_spelling = {"prompt": "SAY number 5, =", "completion": " 5"}
    new = [{"prompt": f"new {n}", "completion": "one"} for n in range(3)]
    code, result, report = prepare(GOOD, [GOOD[3], other_spelling, *new])
    assert code == 0
    [leak] = report["leaks"]
    assert (leak["split"], leak["of"], leak["exact"], leak["near"]) == ("test", "training", 1, 1)
    facts = PrepareFacts.model_validate(result.facts)
    assert facts.leaked_records == 2
    assert (
        "test: 2 of 5 records are in the training data as well (1 in other spelling): scores on them measure memory"
        in facts.warnings
    )


@pytest.mark.parametrize(("leaked", "is_refused"), [(2, False), (3, True), (4, True)])
def test_split_that_mostly_repeats_the_training_data_is_refused(prepare, leaked, is_refused):
    new = [{"prompt": f"new {n}", "completion": "one"} for n in range(4 - leaked)]
    code, result, report = prepare(GOOD, [*GOOD[:leaked], *new])
    assert code == (EXIT_CODES[FailureClass.BAD_INPUT] if is_refused else 0)
    assert report["leaks"][0]["exact"] == leaked
    if is_refused:
        assert (
            f"dataset.test: {leaked} of 4 records are in the training data as well" in result.failure.message
        )
        assert "train.jsonl:1:1); scores on them would measure memory" in result.failure.message


@settings(max_examples=50)
@given(st.text(max_size=400))
def test_any_text_is_looked_through(text):
    """The patterns neither fail nor take long on any text."""
    began = time.process_time()
    assert set(hints_in(text)) <= {"e-mail address", "card number", "phone number", "key or token"}
    assert time.process_time() - began < 2


def test_adversarial_text_takes_no_time():
    began = time.process_time()
    for text in ("a@" * 20_000, "1 " * 20_000, "+1 " * 20_000, "a." * 20_000 + "@", "-----BEGIN " * 5_000):
        list(hints_in(text))
    assert time.process_time() - began < 5


def test_records_that_are_alike_are_never_held_out_from_each_other(prepare):
    code, result, _ = prepare([GOOD[1], {**GOOD[1], "prompt": "Say number 1: ="}])
    assert code == EXIT_CODES[FailureClass.BAD_INPUT]
    assert "1 different record can't be held out" in result.failure.message


def test_places_are_bounded_and_counts_are_not(prepare):
    report = prepare([*GOOD, *GOOD, {"prompt": "a@b.de " * 3, "completion": "x"}])[2]
    duplicates = report["splits"]["training"]["duplicates"]
    assert (duplicates["exact"], len(duplicates["first"])) == (20, 5)
    assert [(hint["count"], len(hint["first"])) for hint in report["hints"]] == [(3, 1)]
