# SPDX-License-Identifier: Apache-2.0
"""A job that NeMo Customizer's double carries: real API server, real operator process, its own client over HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster.operator_process import JobOnCluster, OperatorProcess, until
from support.cluster.operator_setup import make_claims
from support.nemo.data_store import Repository
from support.nemo.double import TOKEN, NemoDouble, served
from support.samples import job_spec
from support.world.services import TARGET, customizer_spec, service_runtime
from tuneyard_api import names, reasons
from tuneyard_api.pod_contract import Stage
from tuneyard_api.status import FineTuneJobStatus

pytestmark = pytest.mark.cluster
HELD = 10_000.0
"""Seconds: longer than any test."""


@pytest.fixture
def double() -> NemoDouble:
    double = NemoDouble(token=TOKEN)
    namespace, name = TARGET.split("/")
    double.customizer.targets.create(
        {"namespace": namespace, "name": name, "num_parameters": 1000, "precision": "bf16"}, model_path="tiny"
    )
    # Each phase lasts until a test has seen it.
    double.customizer.pace.pending = double.customizer.pace.running = HELD
    return double


@pytest.fixture
def runtime(double: NemoDouble, job: JobOnCluster) -> Iterator[str]:
    """A FineTuneRuntime of the double, beside the runtime `hf` whose jobs run in pods."""
    with served(double) as address:
        services = customizer_spec(endpoint=address, entityStore=address, dataStore=address)
        spec = service_runtime(customizer=services, servedModels=[])
        name = f"nemo-{job.namespace}"
        metadata = {"name": name}
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.RUNTIME_KIND,
            "metadata": metadata,
            "spec": spec,
        }
        job.cluster.apply(body)
        yield name
        job.cluster.kubectl("delete", "finetuneruntime", name)


def prepare(double: NemoDouble, job: JobOnCluster) -> None:
    """The prepare pod uploads and succeeds."""
    body = job.cluster.get(
        f"/apis/{names.API_VERSION}/namespaces/{job.namespace}/{names.JOB_PLURAL}/{job.name}"
    )
    repo = f"{job.namespace}/{names.dataset_name(job.name, body['metadata']['uid'])}"
    repository = double.store.repositories[("dataset", repo)] = Repository()
    repository.commit("main", {"training/records.jsonl": b"{}\n" * 40}, "records")
    job.succeed(Stage.PREPARE)


def shape(status: FineTuneJobStatus) -> tuple[list[tuple[str, str, str]], set[str]]:
    conditions = [(each.type.value, each.status, each.reason) for each in status.conditions]
    return conditions, set(status.model_dump(exclude_none=True))


def test_the_same_job_with_another_runtime_ends_with_the_same_shape_of_status(
    operator: OperatorProcess, job: JobOnCluster, double: NemoDouble, runtime: str, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    operator.start("--service-token-file", str(token))
    job.apply(job_spec(runtime={"name": runtime}))
    prepare(double, job)
    job.wait_for("Scheduled", "False", "WaitingForService")
    operator.kill()
    double.customizer.pace.pending = 0.0
    operator.start("--service-token-file", str(token))
    job.wait_for("Trained", "False", reasons.TRAINING)
    double.customizer.pace.running = 1.0
    job.wait_for("Succeeded", "True")
    assert len(double.customizer.started) == 1
    where = f"/apis/{names.API_VERSION}/namespaces/{job.namespace}/{names.JOB_PLURAL}"
    until(
        "no finalizer is left", lambda: "finalizers" not in job.cluster.get(f"{where}/{job.name}")["metadata"]
    )
    by_service = job.status
    other = JobOnCluster(job.cluster, job.namespace, "b")
    make_claims(job.cluster, job.namespace, "b")
    other.apply(job_spec(serve={"disabled": True}))
    for stage in Stage:
        other.succeed(stage)
    other.wait_for("Succeeded", "True")
    assert shape(by_service) == shape(other.status)
    assert TOKEN not in operator.said()


def test_a_job_that_is_deleted_cancels_there_and_goes(
    operator: OperatorProcess, job: JobOnCluster, double: NemoDouble, runtime: str, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    operator.start("--service-token-file", str(token))
    job.apply(job_spec(runtime={"name": runtime}))
    prepare(double, job)
    job.wait_for("Scheduled", "False", "WaitingForService")
    where = ("finetunejob", job.name, "-n", job.namespace)
    job.cluster.kubectl("delete", *where, "--wait=false")
    path = f"/apis/{names.API_VERSION}/namespaces/{job.namespace}/{names.JOB_PLURAL}/{job.name}"
    until("the job is gone", lambda: not job.cluster.get(path))
    assert next(each["status"] for each in double.customizer.jobs.values()) in {"cancelling", "cancelled"}
    told = json.loads(job.cluster.kubectl("get", "events", "-n", job.namespace, "-o", "json").stdout)
    assert "CancellingInService" in {event["reason"] for event in told["items"]}
