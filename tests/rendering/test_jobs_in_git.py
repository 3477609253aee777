# SPDX-License-Identifier: Apache-2.0
"""FineTuneJobs in git: what is rendered can't delete or train one twice, holds nothing up, and lets nothing else in."""

from pathlib import Path
from typing import Any

import pytest
from tuneyard.environment.load import parse
from tuneyard.pipeline import Built, build_loaded
from tuneyard.stack.order import waves

ROOT = Path(__file__).parents[2]
ENVIRONMENT = """\
name: t
argocd: {repoUrl: "https://git.example.com/g.git", teardown: cascade}
storage: {readWriteOnce: {className: fast}, readWriteMany: {className: nfs}}
gpus: {nodes: [{product: NVIDIA-L40S, nodes: 2, gpusPerNode: 1, memoryGiB: 48}]}
models: [{name: m, huggingFace: {repo: Qwen/Qwen2.5-7B-Instruct, revision: abc}}]
fineTuning: {namespaces: [{name: team-a, jobsFolder: jobs/demo}, {name: team-b}]}
"""
JOB = (ROOT / "jobs/demo/docstrings.yaml").read_text()
WAVE = "argocd.argoproj.io/sync-wave"


@pytest.fixture(scope="module")
def built() -> Built:
    return build_loaded(parse(ENVIRONMENT.encode(), "t.yaml"), ROOT)


def rendered(built: Built, name: str) -> dict[str, Any]:
    (file,) = (f for f in built.files if f.path == f"argocd-apps/t/platform/{name}.yaml")
    return dict(file.objects[0])


def test_only_a_namespace_with_a_folder_has_them(built: Built) -> None:
    found = [f.path.rsplit("/", 1)[-1] for f in built.files if "/jobs-" in f.path]
    assert found == ["jobs-team-a-project.yaml", "jobs-team-a.yaml"]


def test_a_job_is_neither_pruned_nor_deleted_with_its_application(built: Built) -> None:
    application = rendered(built, "jobs-team-a")
    assert application["spec"]["syncPolicy"]["automated"]["prune"] is False
    assert "finalizers" not in application["metadata"]
    assert "finalizers" in rendered(built, "models")["metadata"], "the roots of this environment cascade"


def test_nothing_waits_for_a_job_and_a_failed_one_is_not_the_platforms_illness(built: Built) -> None:
    annotations = rendered(built, "jobs-team-a")["metadata"]["annotations"]
    assert int(annotations[WAVE]) == max(waves(built.stack).values()) + 1
    assert annotations["argocd.argoproj.io/ignore-healthcheck"] == "true"


def test_its_project_is_there_before_and_lets_only_jobs_into_the_namespace(built: Built) -> None:
    project, application = rendered(built, "jobs-team-a-project"), rendered(built, "jobs-team-a")
    assert application["spec"]["project"] == project["metadata"]["name"]
    assert int(project["metadata"]["annotations"][WAVE]) < int(application["metadata"]["annotations"][WAVE])
    assert project["spec"]["namespaceResourceWhitelist"] == [{"group": "tuneyard.io", "kind": "FineTuneJob"}]
    assert [d["namespace"] for d in project["spec"]["destinations"]] == ["team-a"]
    assert "clusterResourceWhitelist" not in project["spec"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (JOB, []),
        (JOB.replace("method: lora", "methd: lora"), ["jobs/demo/job.yaml:9:3: spec.methd: unknown field; try method"]),
        (
            JOB.replace("{name: docstrings}", "{name: docstrings, namespace: team-b}"),
            ["jobs/demo/job.yaml:4:30: metadata.namespace: jobs of this folder are of another namespace"],
        ),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n", ["jobs/demo/job.yaml:1:1: apiVersion: not a FineTuneJob"]),
        ("kind: [", ["jobs/demo/job.yaml:"]),
        ("\udcff", ["jobs/demo/job.yaml:1:1: is not UTF-8 text"]),
    ],
    ids=["a good one", "a misspelt field", "another namespace", "another kind", "no YAML", "no text"],
)  # fmt: skip
def test_a_job_that_would_be_refused_is_said_before_it_is_committed(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    for folder in ("manifests/crds", "charts/tuneyard-operator"):
        (tmp_path / folder).parent.mkdir(parents=True)
        (tmp_path / folder).symlink_to(ROOT / folder)
    (tmp_path / "jobs/demo").mkdir(parents=True)
    (tmp_path / "jobs/demo/job.yaml").write_bytes(text.encode(errors="surrogateescape"))
    findings = build_loaded(parse(ENVIRONMENT.encode(), "t.yaml"), tmp_path).findings
    said = [str(f) for f in findings if f.rule == "job-is-accepted"]
    assert bool(said) == bool(expected)
    for start in expected:
        assert any(line.startswith(start) for line in said), said
