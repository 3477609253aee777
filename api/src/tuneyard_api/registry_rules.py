# SPDX-License-Identifier: Apache-2.0
"""The rules of where a job publishes to, as CEL and in Python side by side: one registry, and what only one on a claim can do."""

from typing import Any

from tuneyard_api.base import Rule
from tuneyard_api.job_rules import attribute_of, rule

_ELSEWHERE = ("s3", "dataStore")
_ON_A_CLAIM = " && ".join(f"!has(self.publish.{name})" for name in _ELSEWHERE)


def _at_most_one(*names: str) -> Rule:
    """The rule that at most one of several fields is given."""
    given = " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in names)
    return rule(
        f"{given} < 2",
        lambda self: sum(getattr(self, attribute_of(name)) is not None for name in names) < 2,  # noqa: PLR2004
        f"{', '.join(names[:-1])} and {names[-1]} exclude each other (got several); try one",
    )


def _is_on_a_claim(spec: Any) -> bool:
    return all(getattr(spec.publish, attribute_of(name)) is None for name in _ELSEWHERE)


ONE_REGISTRY = _at_most_one("pvc", *_ELSEWHERE)
ONE_DEFAULT_REGISTRY = _at_most_one("registry", "registryS3", "registryDataStore")
ONLY_CLAIMS_DELETE = rule(
    f"self.deletionPolicy != 'Delete' || ({_ON_A_CLAIM})",
    lambda spec: spec.deletion_policy != "Delete" or _is_on_a_claim(spec),
    "an adapter in S3 or a Data Store is not removed with its job (got {deletionPolicy}); try Retain, or publish.pvc",
    field="deletionPolicy",
)
ONLY_CLAIMS_CONTINUE = rule(
    f"!has(self.model.adapter) || !has(self.model.adapter.published) || ({_ON_A_CLAIM})",
    lambda spec: spec.model.adapter is None or spec.model.adapter.published is None or _is_on_a_claim(spec),
    "a published adapter is read from a registry on a claim alone, and the job publishes to S3 or a Data Store (got"
    " {model.adapter.published}); try model.adapter.pvc with a copy of it",
    field="model.adapter.published",
)
