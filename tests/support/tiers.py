# SPDX-License-Identifier: Apache-2.0
"""Chooses the tiers that run here: unit always can, the others need something of the machine. Skips are reported.

TUNEYARD_TIERS, a comma list of unit, torch, vllm, cluster, gitops and e2e, chooses; without it all run that can. A tier
that was asked for by name and cannot run is an error: a skip would look like success.

Tests marked `long` prove again, on more of the real thing, what a shorter one holds: `make test-all` (TUNEYARD_LONG=1)
runs them too.
"""

import importlib.util
import os
from functools import cache

import pytest
from tuneyard_local.requirements import (
    missing_for_control_plane,
    missing_for_gitops,
    missing_for_native,
)
from tuneyard_local.vllm import missing_for_vllm

from support import kind

TIERS = ("unit", "torch", "vllm", "cluster", "gitops", "e2e")
SKIPPED = pytest.StashKey[dict[str, tuple[str, int]]]()


def tier_of(item: pytest.Item) -> str:
    """The tier of a test: its marker; the widest where it has several."""
    return next((tier for tier in reversed(TIERS) if item.get_closest_marker(tier)), "unit")


@cache
def missing_for(tier: str) -> str | None:
    """Why a tier can't run on this machine, in one line; None: it can."""
    if tier == "cluster":
        return kind.missing_for_kind() if kind.is_chosen() else missing_for_control_plane()
    if tier == "gitops":
        return missing_for_gitops()
    if tier == "e2e":
        return missing_for_native()
    if tier == "vllm":
        return missing_for_vllm()
    if tier == "torch" and importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed; try: uv sync --group torch --inexact"
    return None


def is_put_off(item: pytest.Item) -> bool:
    """Whether a test is long, and long tests were not asked for."""
    return item.get_closest_marker("long") is not None and not os.environ.get("TUNEYARD_LONG")


def chosen_tiers(value: str | None) -> tuple[str, ...] | None:
    """The tiers that TUNEYARD_TIERS names; None when it is not set."""
    if not value:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if unknown := [name for name in names if name not in TIERS]:
        raise pytest.UsageError(f"TUNEYARD_TIERS: no tier {unknown[0]!r}; try one of {', '.join(TIERS)}")
    return names


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = chosen_tiers(os.environ.get("TUNEYARD_TIERS"))
    skipped = config.stash.setdefault(SKIPPED, {})
    for item in items:
        tier = tier_of(item)
        if chosen is not None and tier not in chosen:
            reason: str | None = "not among TUNEYARD_TIERS"
        elif (reason := missing_for(tier)) and chosen is not None:
            raise pytest.UsageError(f"tier {tier} was asked for by TUNEYARD_TIERS, but: {reason}")
        if not reason and is_put_off(item):
            tier, reason = f"{tier}, long", "make test-all runs them"
        if reason:
            item.add_marker(pytest.mark.skip(reason=f"tier {tier}: {reason}"))
            skipped[tier] = (reason, skipped.get(tier, ("", 0))[1] + 1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for tier, (reason, count) in config.stash.get(SKIPPED, {}).items():
        terminalreporter.write_line(f"TIER SKIPPED: {tier} ({count} tests): {reason}", yellow=True)
