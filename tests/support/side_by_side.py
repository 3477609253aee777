# SPDX-License-Identifier: Apache-2.0
"""How `make test` runs two tests at a time (pytest-xdist, `-n 2`): a tier that mostly waits beside one that computes.

Tests of a tier whose tests share one cluster stay on one worker, so that the cluster is there once; the others stay
together by file. The long tiers begin, and what is short fills up the end.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from support.tiers import SKIPPED, TIERS, tier_of

SHARE_A_CLUSTER = ("gitops", "e2e")
"""Argo CD's, and the one of real nodes."""


class ByCluster(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Groups tests by the cluster that a file's tests share, or by the file."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(self.config.rootpath / nodeid.partition("::")[0])


@cache
def scope_of(file: Path) -> str:
    """The scope of a test, from its id: the process that distributes the work has collected no tests."""
    text = file.read_text(encoding="utf-8")
    return next((tier for tier in SHARE_A_CLUSTER if f"mark.{tier}" in text), str(file))


@pytest.hookimpl(optionalhook=True)  # `-p no:xdist` takes the hook away, and must not take the tiers with it
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByCluster:
    return ByCluster(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: TIERS.index(tier_of(item)), reverse=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tiers skipped"] = session.config.stash.get(SKIPPED, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Every worker has collected all tests: what one of them skips, all do."""
    if skipped := getattr(node, "workeroutput", {}).get("tiers skipped"):
        node.config.stash[SKIPPED] = skipped
