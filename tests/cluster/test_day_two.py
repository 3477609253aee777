# SPDX-License-Identifier: Apache-2.0
"""The pages on upgrade, rollback and uninstall, followed on a real API server with jobs under way.

The operator is a process of its own, as no kubelet starts the chart's pod here; Helm's commands are carried out all the same.
The release of tomorrow is this one with one more field in job.json and in the CRD.
"""

import shutil
from pathlib import Path

import pytest
import yaml
from support.cluster.operator_process import JobOnCluster, OperatorProcess, until
from support.cluster.operator_setup import StandInServer, make_claims, make_namespace, serve_kinds
from support.pages import run_page
from support.samples import job_spec
from tuneyard_api import names
from tuneyard_api.pod_contract import Stage
from tuneyard_local.cluster import Cluster
from tuneyard_local.parts import program
from tuneyard_local.paths import script

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
SYSTEM, RELEASE = "tuneyard-system", "tuneyard-operator"
FLAGS = ("--resync-seconds", "5")
SECONDS = 180


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a reader has in the folder: the chart and the CRDs."""
    shutil.copytree(ROOT / "charts", tmp_path / "charts")
    shutil.copytree(ROOT / "manifests/crds", tmp_path / "manifests/crds")
    return tmp_path


@pytest.fixture
def reader(served_cluster: Cluster, helm_is_built: None, checkout: Path) -> dict[str, str]:
    """The environment of the reader's shell, in a cluster where the chart is installed."""
    make_namespace(served_cluster, SYSTEM)
    shell = {
        "KUBECONFIG": str(served_cluster.kubeconfig),
        "PATH": f"{program('helm').parent}:{Path(script('kubectl')).parent}:/usr/bin:/bin",
        "HELM_CACHE_HOME": str(checkout / ".helm"),
    }
    install = checkout / "install.md"
    install.write_text(
        f"```console\n$ helm upgrade --install --take-ownership {RELEASE} charts/{RELEASE} -n {SYSTEM}\n```\n"
    )
    assert run_page(install, checkout, shell, SECONDS) == []
    return shell


def follow(page: str, part: str, checkout: Path, shell: dict[str, str]) -> None:
    """Carry out the commands below one heading of a page."""
    text = (ROOT / "docs/how-to" / f"{page}.md").read_text()
    file = checkout / f"{page}.md"
    file.write_text(text.split(f"\n## {part}\n")[1].split("\n## ")[0])
    assert run_page(file, checkout, shell, SECONDS) == []


def write_tomorrow(checkout: Path) -> Path:
    """The release of tomorrow: its CRD goes into the checkout; returns where its Python packages are."""
    crd = checkout / "manifests/crds/finetunejobs.tuneyard.io.yaml"
    body = yaml.safe_load(crd.read_text())
    schema = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["tomorrow"] = {"type": "integer"}
    crd.write_text(yaml.safe_dump(body))
    packages = checkout / "tomorrow"
    shutil.copytree(ROOT / "api/src", packages)
    contract = packages / "tuneyard_api/pod_contract.py"
    before = "    adapter_name: str\n    replace: bool = False\n"
    assert before in contract.read_text()
    contract.write_text(contract.read_text().replace(before, f"{before}    tomorrow: int = 1\n"))
    return packages


def test_jobs_go_on_through_an_upgrade_and_a_rollback(
    operator: OperatorProcess,
    job: JobOnCluster,
    checkout: Path,
    reader: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_claims(job.cluster, job.namespace, "b")
    later = JobOnCluster(job.cluster, job.namespace, "b")
    spec = job_spec(serve={"disabled": True})
    operator.start(*FLAGS)
    job.apply(spec)
    job.succeed(Stage.PREPARE)
    job.run_pod(job.pod(Stage.TRAIN))

    tomorrow = write_tomorrow(checkout)
    follow("upgrade", "With Helm", checkout, reader)
    operator.kill()
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", str(tomorrow))
        operator.start(*FLAGS)
    job.succeed(Stage.TRAIN)
    until("publish", lambda: "a-publish-1" in job.jobs())
    later.apply(spec)
    later.succeed(Stage.PREPARE)
    until("train", lambda: "b-train-1" in later.jobs())

    follow("upgrade", "Roll back", checkout, reader)
    operator.kill()
    operator.start(*FLAGS)
    job.succeed(Stage.PUBLISH)
    job.wait_for("Succeeded", "True")
    for stage in (Stage.TRAIN, Stage.PUBLISH):
        later.succeed(stage)
    later.wait_for("Succeeded", "True")
    for each in (job, later):
        assert [attempt.number for attempt in each.status.attempts] == [1, 1, 1], "nothing was done twice"
    job.cluster.kubectl("delete", "namespace", SYSTEM)


def test_after_an_uninstall_the_data_is_there(
    operator: OperatorProcess,
    job: JobOnCluster,
    checkout: Path,
    reader: dict[str, str],
    endpoint: StandInServer,
) -> None:
    operator.start(*FLAGS)
    job.apply(job_spec(serve={"disabled": True}))
    for stage in Stage:
        job.succeed(stage)
    job.wait_for("Succeeded", "True")

    follow("uninstall", "The operator alone", checkout, reader)
    assert job.status.result is not None, "the job and its result are there"
    install = checkout / "install.md"
    assert run_page(install, checkout, reader, SECONDS) == []
    follow("uninstall", "Jobs and kinds too", checkout, reader)
    try:
        path = f"/apis/{names.API_VERSION}/namespaces/{job.namespace}/{names.JOB_PLURAL}"
        until("the kinds to be gone", lambda: job.cluster.get(path) is None)
        claims = job.cluster.get(f"/api/v1/namespaces/{job.namespace}/persistentvolumeclaims")["items"]
        left = {
            claim["metadata"]["name"] for claim in claims if not claim["metadata"].get("deletionTimestamp")
        }
        assert {"adapters", "models", "data"} <= left
        until("its Jobs to be gone", lambda: not job.jobs())
    finally:
        operator.kill()
        serve_kinds(job.cluster, endpoint.url)
        job.cluster.kubectl("delete", "namespace", SYSTEM)
