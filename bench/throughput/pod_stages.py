# SPDX-License-Identifier: Apache-2.0
"""Fills stages.yaml: every fake pod ends with the result that the trainer would have written for its stage."""

from collections.abc import Sequence
from pathlib import Path

from tuneyard_api import names
from tuneyard_api.evaluation_facts import EvaluationFacts, Scores
from tuneyard_api.pod_contract import PrepareFacts, PublishFacts, Stage, StageResult, TrainFacts

DIGEST_LENGTH = 64
"""Characters of a SHA-256 in hex; stages.yaml counts with it."""
DIGEST_MARK = "@DIGEST@"
"""Stands for the plan's digest in a result until kwok knows which pod it is for."""
_TEMPLATE = Path(__file__).with_name("stages.yaml")

_BASE = Scores(loss=2.31, perplexity=10.07, exact_match=0.02, rouge_l=0.21, prompts=64)
_TUNED = Scores(loss=1.42, perplexity=4.14, exact_match=0.11, rouge_l=0.43, prompts=64)
_FACTS = {
    Stage.PREPARE: PrepareFacts(
        model_revision="0123456789abcdef0123456789abcdef01234567",
        model_type="llama",
        train_records=4000,
        validation_records=200,
        test_records=200,
        train_sequences=570,
        train_tokens=583_000,
        learned_tokens=91_000,
        truncated_records=3,
        dataset_digest="sha256:" + "0" * DIGEST_LENGTH,
    ),
    Stage.TRAIN: TrainFacts(
        steps=285,
        epochs=1.0,
        final_loss=1.39,
        validation_loss=1.42,
        trained_tokens=583_000,
        tokens_per_second=14_300.0,
        seconds=40.8,
        peak_memory_bytes=23_000_000_000,
        evaluation=EvaluationFacts(base=_BASE, tuned=_TUNED),
    ),
    Stage.PUBLISH: PublishFacts(
        adapter_name="adapter",
        digest="sha256:" + "1" * DIGEST_LENGTH,
        path="/registry/adapter",
        size_bytes=168_000_000,
    ),
}


def build_result(stage: Stage) -> StageResult:
    """A valid Succeeded result of a stage, of the plan DIGEST_MARK."""
    facts = _FACTS[stage].model_dump(mode="json", by_alias=True)
    return StageResult(stage=stage, outcome="Succeeded", plan_digest=DIGEST_MARK, facts=facts)


def render_stages(prefix: str, digests: Sequence[str]) -> str:
    """Kwok's configuration, as YAML, for jobs that are named `<prefix><number>` and have `digests[number]`."""
    if any(len(digest) != DIGEST_LENGTH for digest in digests):
        raise ValueError(f"a plan's digest has {DIGEST_LENGTH} characters")
    values = {
        "@PREFIX@": prefix,
        "@LABEL_JOB@": names.LABEL_JOB,
        "@LABEL_STAGE@": names.LABEL_STAGE,
        "@DIGESTS@": "".join(digests),
        **{f"@{stage.name}@": build_result(stage).model_dump_json(by_alias=True) for stage in Stage},
    }
    text = _TEMPLATE.read_text()
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text
