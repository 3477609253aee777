# SPDX-License-Identifier: Apache-2.0
"""Public benchmarks of a job: what base and tuned model are asked beside the job's own records, and how they did."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tuneyard_api.base import Contract, Rule, Tolerant
from tuneyard_api.job_rules import rule
from tuneyard_api.places import ClaimSource

Benchmark = Literal["boolq", "hellaswag", "lambada", "piqa", "race", "wikitext", "winogrande"]
"""A task of EleutherAI's lm-evaluation-harness; lambada is its `lambada_openai`."""


class Benchmarks(Contract):
    """Public benchmarks that both models are asked, by lm-evaluation-harness, from files of your own and without examples."""

    rules: ClassVar[tuple[Rule, ...]] = (
        rule(
            "self.names.all(name, self.names.exists_one(other, other == name))",
            lambda self: len(set(self.names)) == len(self.names),
            "a benchmark is named once (got one twice); try to leave it out",
            "names",
        ),
    )

    names: Annotated[tuple[Benchmark, ...], Field(min_length=1, max_length=7)]
    """The benchmarks, in the order in which they are asked."""
    pvc: ClaimSource
    """A folder with a file `<name>.jsonl` for each of them, with the columns that it has on the Hugging Face hub."""
    limit: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Number of records of each benchmark that are asked, the first ones; absent: all. Scores of a part are not those that
    people quote."""


class BenchmarkFacts(Tolerant):
    """Base and tuned model on one metric of one benchmark, with 95 % intervals where they can be known."""

    name: str
    metric: str
    """The name in lm-evaluation-harness: acc, acc_norm, perplexity, word_perplexity."""
    documents: int
    """Number of records that were asked."""
    records_digest: str
    """`sha256:` over these records."""
    base: float
    base_low: float | None = None
    base_high: float | None = None
    tuned: float
    tuned_low: float | None = None
    tuned_high: float | None = None
    gain_low: float | None = None
    """Lower end of the interval of tuned minus base, by bootstrap over the records; absent: no record differs."""
    gain_high: float | None = None
    """Its upper end."""
