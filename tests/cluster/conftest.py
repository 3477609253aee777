# SPDX-License-Identifier: Apache-2.0
"""The operator against a real API server, Job controller and scheduler, on two fake nodes of four GPUs."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster.kueue import Kueue
from support.cluster.operator_process import JobOnCluster, OperatorProcess, restricted_kubeconfig
from support.cluster.operator_setup import STAGES, StandInServer, make_claims, make_namespace, serve_kinds
from support.clusters import Clusters
from tuneyard_local.cluster import Cluster
from tuneyard_local.controlplane import ControlPlaneOptions


@pytest.fixture(scope="session")
def bare_cluster(clusters: Clusters, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """A control plane with fake nodes, without our kinds."""
    stages = tmp_path_factory.mktemp("kwok") / "stages.yaml"
    stages.write_text(STAGES)
    options = ControlPlaneOptions(fake_nodes=2, gpus_per_fake_node=4, kwok_stages=(stages,))
    return clusters("operator", options)


@pytest.fixture(scope="session")
def kubeconfig(bare_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's: what its chart gives it, and no more."""
    return restricted_kubeconfig(bare_cluster, tmp_path_factory.mktemp("operator"))


@pytest.fixture(scope="session")
def endpoint() -> Iterator[StandInServer]:
    """The inference endpoint of runtime `hf`."""
    server = StandInServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def served_cluster(bare_cluster: Cluster, endpoint: StandInServer) -> Cluster:
    """The cluster with our kinds and runtime `hf`."""
    serve_kinds(bare_cluster, endpoint.url)
    return bare_cluster


@pytest.fixture
def operator(served_cluster: Cluster, kubeconfig: Path, tmp_path: Path) -> Iterator[OperatorProcess]:
    """The operator; what it said is shown when the test fails."""
    process = OperatorProcess(kubeconfig, tmp_path / "operator.log")
    yield process
    process.kill()
    print(process.log.read_text() if process.log.exists() else "the operator was never started")


@pytest.fixture(scope="module")
def kueue(queue_cluster: Cluster, helm_is_built: None, tmp_path_factory: pytest.TempPathFactory) -> Kueue:
    """Kueue on the module's own `queue_cluster`."""
    kueue = Kueue(queue_cluster, tmp_path_factory.mktemp("kueue"))
    kueue.install()
    return kueue


@pytest.fixture
def job_without_claims(served_cluster: Cluster) -> Iterator[JobOnCluster]:
    """A FineTuneJob (not yet applied) in a namespace without any claim."""
    name = f"t-{uuid.uuid4().hex[:10]}"
    make_namespace(served_cluster, name)
    yield JobOnCluster(served_cluster, name)
    served_cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def job(job_without_claims: JobOnCluster) -> JobOnCluster:
    """A FineTuneJob (not yet applied) in a namespace with the claims that it names."""
    make_claims(job_without_claims.cluster, job_without_claims.namespace)
    return job_without_claims
