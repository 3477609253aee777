# SPDX-License-Identifier: Apache-2.0
"""`make release` in a clone: what it writes, what it refuses, and that it leaves a tree in which nothing is stale."""

import os
import subprocess
from datetime import date
from pathlib import Path

import pytest
from release import RefusedError, dated, moved, release

REPOSITORY = Path(__file__).parents[2]
TODAY = date(2030, 1, 2)
SOMEONE = {
    f"GIT_{who}_{what}": "someone@example.com"
    for who in ("AUTHOR", "COMMITTER")
    for what in ("NAME", "EMAIL")
}


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tree as it is here, committed, without tags; its own code runs in it."""
    folder = tmp_path / "clone"
    folder.mkdir()
    names = git(REPOSITORY, "ls-files", "-co", "--exclude-standard", "-z").split("\0")
    for name in filter(None, names):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((REPOSITORY / name).read_bytes())
    for key, value in SOMEONE.items():
        monkeypatch.setenv(key, value)
    members = [str(path.parent / "src") for path in folder.glob("*/pyproject.toml")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(members))
    monkeypatch.delenv("CI", raising=False)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "All of it")
    return folder


def test_a_release_is_one_commit_and_one_tag_with_the_version_everywhere(clone: Path) -> None:
    release(clone, "7.8.9", TODAY)
    assert git(clone, "log", "-1", "--format=%s").strip() == "Release 7.8.9"
    assert git(clone, "tag", "--points-at", "HEAD").split() == ["v7.8.9"]
    assert git(clone, "status", "--porcelain") == ""
    for path in clone.glob("**/pyproject.toml"):
        assert 'version = "7.8.9"' in path.read_text(), path
    lock = (clone / "uv.lock").read_text().split("[[package]]")
    ours = [
        package
        for package in lock
        if 'source = { editable = "' in package or 'source = { virtual = "' in package
    ]
    assert [package for package in ours if 'version = "7.8.9"' not in package] == []
    assert "## Unreleased\n\n## 7.8.9 - 2030-01-02\n" in (clone / "CHANGELOG.md").read_text()
    chart = clone / "charts/tuneyard-operator"
    assert "version: 7.8.9\nappVersion: 7.8.9\n" in (chart / "Chart.yaml").read_text()
    values = (chart / "values.yaml").read_text()
    assert "tag: 7.8.9\n" in values
    assert "tag: 7.8.9-cuda\n" in values
    assert "trainer:7.8.9" in (clone / "manifests/open/fine-tuning/finetuneruntime-hf.yaml").read_text()


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("1.2", "three numbers"),
        ("v1.2.3", "three numbers"),
        ("0.0.1", "lower than"),
        ("5.0.0", "tag v5.0.0 exists"),
    ],
)
def test_a_wrong_version_is_refused_and_nothing_changes(clone: Path, version: str, words: str) -> None:
    git(clone, "tag", "v5.0.0")
    with pytest.raises(RefusedError, match=words):
        release(clone, version, TODAY)
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "tag").split() == ["v5.0.0"]


def test_a_dirty_tree_is_refused(clone: Path) -> None:
    (clone / "new.txt").write_text("not committed")
    with pytest.raises(RefusedError, match="dirty"):
        release(clone, "7.8.9", TODAY)
    assert git(clone, "tag") == ""


def test_nothing_new_is_refused() -> None:
    for changelog in (
        "# Changelog\n",
        "# Changelog\n\n## Unreleased\n\n## 1.0.0 - 2029-01-01\n- Something.\n",
    ):
        with pytest.raises(RefusedError, match="nothing under Unreleased"):
            dated(changelog, "1.0.1", TODAY)


def test_only_our_own_version_moves() -> None:
    lock = 'name = "other"\nversion = "0.1.0"\nname = "tuneyard-api"\nversion = "0.1.0"\n'
    form = r'^name = "tuneyard[a-z-]*"\nversion = "{}"$'
    assert moved(lock, form, "0.1.0", "0.2.0") == lock.replace(
        'api"\nversion = "0.1.0"', 'api"\nversion = "0.2.0"'
    )
