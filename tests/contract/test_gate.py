# SPDX-License-Identifier: Apache-2.0
"""The gate: which condition stands, by how much another one is missed, and what is never taken for met."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.pages import read_blocks
from support.samples import job_spec
from tuneyard_api.evaluation_facts import EvaluationFacts, PreferenceScores, Scores
from tuneyard_api.gate import Gate, KeptEvaluation, Served, never_measured, why_refused
from tuneyard_api.job import FineTuneJobSpec

PAGE = Path(__file__).parents[2] / "docs/how-to/gates.md"
BASE = {"loss": 2.0, "perplexity": 7.4, "exact_match": 0.5, "rouge_l": 0.4, "prompts": 10}
TUNED = {"loss": 1.5, "perplexity": 4.5, "exact_match": 0.7, "rouge_l": 0.6, "prompts": 10}
REFUSED = "nothing is published, as evaluation.gate is not met: "


def facts(*, pairs: tuple[float, float] | None = None, **tuned: Any) -> EvaluationFacts:
    preferences = None
    if pairs is not None:
        before, after = pairs
        preferences = PreferenceScores(
            pairs=20,
            base_accuracy=before,
            tuned_accuracy=after,
            base_margin=0.0,
            tuned_margin=1.0,
            reward_accuracy=0.5,
            reward_margin=0.1,
        )
    return EvaluationFacts(base=Scores(**BASE), tuned=Scores(**{**TUNED, **tuned}), preferences=preferences)


def kept(digest: str = "sha256:same", **tuned: Any) -> Served:
    return Served("sha256:0123456789abcdef", KeptEvaluation(facts=facts(**tuned), records_digest=digest))


def gate(**content: Any) -> Gate:
    return Gate.model_validate(content)


@pytest.mark.parametrize(
    "content",
    [
        {"minimum": {"exactMatch": 0.7, "rougeL": 0.6}},
        {"maximum": {"loss": 1.5, "perplexity": 4.5}},
        {"mustNotRegress": {"base": {"loss": 0, "perplexity": 0, "exactMatch": 0, "rougeL": 0}}},
        {"mustNotRegress": {"served": {"rougeL": 0, "loss": 0}}},
    ],
)
def test_a_bound_that_is_just_reached_is_met(content: dict[str, Any]) -> None:
    assert why_refused(gate(**content), facts(), kept(), "sha256:same") is None


@pytest.mark.parametrize(
    ("content", "tuned", "said"),
    [
        ({"minimum": {"rougeL": 0.65}}, {}, "rougeL is 0.6, 0.05 below the minimum of 0.65"),
        ({"minimum": {"exactMatch": 0.9}}, {}, "exactMatch is 0.7, 0.2 below the minimum of 0.9"),
        ({"maximum": {"loss": 1.4}}, {}, "loss is 1.5, 0.1 above the maximum of 1.4"),
        ({"maximum": {"perplexity": 4}}, {}, "perplexity is 4.5, 0.5 above the maximum of 4"),
        (
            {"mustNotRegress": {"base": {"exactMatch": 0.02}}},
            {"exact_match": 0.4},
            "exactMatch is 0.4, 0.1 worse than the 0.5 of the base model (0.02 is allowed)",
        ),
        (
            {"mustNotRegress": {"base": {"loss": 0}}},
            {"loss": 2.25},
            "loss is 2.25, 0.25 worse than the 2 of the base model (0 is allowed)",
        ),
        (
            {"mustNotRegress": {"served": {"rougeL": 0.05}}},
            {"rouge_l": 0.5},
            "rougeL is 0.5, 0.1 worse than the 0.6 of the version now served (sha256:0123456789ab) (0.05 is allowed)",
        ),
    ],
)
def test_what_is_missed_is_said_with_by_how_much(
    content: dict[str, Any], tuned: dict[str, float], said: str
) -> None:
    assert why_refused(gate(**content), facts(**tuned), kept(), "sha256:same") == REFUSED + said


def test_what_is_allowed_exactly_is_allowed_whatever_floats_make_of_it() -> None:
    """0.8 - 0.1 is a little more than 0.7 in binary."""
    former = kept(exact_match=0.8)
    assert (
        why_refused(gate(mustNotRegress={"served": {"exactMatch": 0.1}}), facts(), former, "sha256:same")
        is None
    )


def test_every_condition_that_is_missed_is_said() -> None:
    refusal = why_refused(
        gate(minimum={"rougeL": 0.9}, maximum={"loss": 1}, mustNotRegress={"base": {"exactMatch": 0}}),
        facts(exact_match=0.1),
    )
    assert refusal is not None
    assert [part.split()[0] for part in refusal.removeprefix(REFUSED).split("; ")] == [
        "rougeL",
        "loss",
        "exactMatch",
    ]


def test_a_model_without_a_gate_passes() -> None:
    assert why_refused(None, None) is None


@pytest.mark.parametrize("content", [{"minimum": {"rougeL": 0}}, {"mustNotRegress": {"base": {"rougeL": 1}}}])
def test_what_was_not_measured_is_never_met(content: dict[str, Any]) -> None:
    assert why_refused(gate(**content), None) == f"{REFUSED}rougeL was not measured"
    assert why_refused(gate(**content), facts(prompts=0)) == f"{REFUSED}rougeL was not measured"


def test_preferences_are_compared_where_they_were_measured() -> None:
    wanted = gate(minimum={"preferenceAccuracy": 0.8}, mustNotRegress={"base": {"preferenceAccuracy": 0}})
    assert why_refused(wanted, facts(pairs=(0.5, 0.8))) is None
    assert why_refused(wanted, facts(pairs=(0.9, 0.75))) == (
        f"{REFUSED}preferenceAccuracy is 0.75, 0.05 below the minimum of 0.8;"
        " preferenceAccuracy is 0.75, 0.15 worse than the 0.9 of the base model (0 is allowed)"
    )
    assert "preferenceAccuracy was not measured" in str(why_refused(wanted, facts()))


def test_a_served_version_is_compared_only_if_it_was_measured_alike() -> None:
    wanted = gate(mustNotRegress={"served": {"loss": 0}})
    assert why_refused(wanted, facts()) is None  # the name is free
    other = why_refused(wanted, facts(), kept("sha256:other", loss=9.0), "sha256:same")
    assert "was measured on other held-out records" in str(other)
    unknown = why_refused(wanted, facts(), Served("sha256:0123456789abcdef", None), "sha256:same")
    assert "the version now served (sha256:0123456789ab) keeps no evaluation" in str(unknown)


def test_a_gate_knows_before_the_training_what_can_not_be_measured() -> None:
    wanted = gate(minimum={"rougeL": 0.1, "exactMatch": 0.1}, maximum={"loss": 3})
    assert never_measured(wanted, has_records=True, has_prompts=True) == ()
    assert never_measured(wanted, has_records=True, has_prompts=False) == ("exactMatch", "rougeL")
    assert never_measured(wanted, has_records=False, has_prompts=False) == ("loss", "exactMatch", "rougeL")
    assert never_measured(None, has_records=False, has_prompts=False) == ()


def test_the_gate_of_the_page_is_one_and_misses_what_the_page_says() -> None:
    blocks = read_blocks(PAGE)
    [written] = [yaml.safe_load(block.text)["spec"] for block in blocks if block.language == "yaml"]
    spec = FineTuneJobSpec.model_validate({**job_spec(), **written})
    shown = [block.text.splitlines()[1] for block in blocks if block.language == "console"]
    base = Scores(**{**BASE, "rouge_l": 0.2})
    measured = facts(rouge_l=0.312, loss=1.3).model_copy(update={"base": base})
    assert shown == [why_refused(spec.evaluation.gate, measured)]
