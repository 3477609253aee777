# SPDX-License-Identifier: Apache-2.0
"""A tier that does not run is named, and one that was asked for by name may not be skipped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.tiers import chosen_tiers, is_put_off, tier_of
from tuneyard_local.requirements import missing_for_gitops, missing_for_native


@pytest.mark.parametrize(
    ("value", "tiers"),
    [(None, None), ("", None), ("unit", ("unit",)), ("unit, e2e", ("unit", "e2e"))],
    ids=["not set", "empty", "one", "a list with a space"],
)
def test_tiers_are_read_from_the_environment(value: str | None, tiers: tuple[str, ...] | None) -> None:
    assert chosen_tiers(value) == tiers


def test_an_unknown_tier_is_refused_by_name() -> None:
    with pytest.raises(pytest.UsageError, match="no tier 'e3e'"):
        chosen_tiers("unit,e3e")


def test_a_test_without_marker_is_a_unit_test(request: pytest.FixtureRequest) -> None:
    assert tier_of(request.node) == "unit"


@pytest.mark.torch
def test_a_marker_says_the_tier(request: pytest.FixtureRequest) -> None:
    assert tier_of(request.node) == "torch"


def test_a_long_test_runs_when_it_is_asked_for(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNEYARD_LONG", raising=False)
    assert not is_put_off(request.node)
    request.applymarker(pytest.mark.long)
    assert is_put_off(request.node)
    monkeypatch.setenv("TUNEYARD_LONG", "1")
    assert not is_put_off(request.node)


def test_tiers_are_chosen_without_xdist_too(request: pytest.FixtureRequest) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:xdist", "--collect-only", "-q", "tests/local/test_control_plane.py"],
        cwd=request.config.rootpath, env=os.environ | {"TUNEYARD_TIERS": "unit"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TIER SKIPPED: cluster (" in done.stdout


def test_without_root_real_nodes_say_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "need root" in (missing_for_native() or "")


def test_without_gits_http_program_argocd_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tuneyard_local.requirements.GIT_BACKEND", tmp_path / "git-http-backend")
    assert "git-http-backend); try: apt-get install git" in (missing_for_gitops() or "")
