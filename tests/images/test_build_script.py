# SPDX-License-Identifier: Apache-2.0
"""`make images` pushes the names that the chart and the environments have as defaults."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
DIGEST = "sha256:" + "a" * 64
DOCKER = f"""#!/bin/sh
[ "$1" = info ] && exit 0
echo "$@" >> "$CALLS"
while [ "$#" -gt 0 ]; do
    [ "$1" = --metadata-file ] && echo '{{"containerimage.digest": "{DIGEST}"}}' > "$2"
    shift
done
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed tree with the script, and a docker on the path that writes its calls down."""
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "someone@example.com")
    docker = tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    script = tmp_path / "tree/images/build.sh"
    script.parent.mkdir(parents=True)
    script.write_bytes((REPOSITORY / "images/build.sh").read_bytes())
    script.chmod(0o755)
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "All of it"]):
        subprocess.run(["git", *words], cwd=tmp_path / "tree", check=True)
    return tmp_path / "tree"


def pushed(tree: Path) -> list[str]:
    subprocess.run(["images/build.sh", "reg.example.com/tuneyard"], cwd=tree, check=True, capture_output=True)
    words = (tree.parent / "calls").read_text().split()
    return [
        words[place + 1].removeprefix("reg.example.com/tuneyard/")
        for place, word in enumerate(words)
        if word == "--tag"
    ]


def test_a_release_is_pushed_under_the_names_of_chart_and_environments(tree: Path) -> None:
    chart = REPOSITORY / "charts/tuneyard-operator"
    version = yaml.safe_load((chart / "Chart.yaml").read_text())["version"]
    values = yaml.safe_load((chart / "values.yaml").read_text())
    subprocess.run(["git", "tag", "--annotate", f"v{version}", "--message", "it"], cwd=tree, check=True)
    names = pushed(tree)
    for image in (values["image"], values["hf"]["image"]):
        assert f"{image['repository'].removeprefix('tuneyard/')}:{image['tag']}" in names
    environment = yaml.safe_load(
        (REPOSITORY / "manifests/open/fine-tuning/finetuneruntime-hf.yaml").read_text()
    )
    assert environment["spec"]["image"].partition("/tuneyard/")[2] in names


def test_any_other_commit_is_pushed_under_its_own_name(tree: Path) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=tree, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert pushed(tree) == [
        f"operator:{commit}",
        f"trainer:{commit}-cuda",
        f"trainer:{commit}",
        f"trainer:{commit}-cpu",
        f"server:{commit}",
    ]
