# SPDX-License-Identifier: Apache-2.0
"""Faults between the operator and the API server, on a control plane whose nodes and pods are played."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster.operator_process import JobOnCluster, OperatorProcess, restricted_kubeconfig
from support.cluster.operator_setup import STAGES, StandInServer, make_claims, make_namespace, serve_kinds
from support.faults.history import History
from support.faults.pod_player import PodPlayer
from support.faults.proxy import FaultProxy
from support.faults.scene import OTHER_LEASE, Scene
from tuneyard_local.cluster import Cluster
from tuneyard_local.controlplane import ControlPlane, ControlPlaneOptions


@pytest.fixture(scope="session")
def ill_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane of our own, since its parts are killed."""
    stages = tmp_path_factory.mktemp("kwok") / "stages.yaml"
    stages.write_text(STAGES)
    options = ControlPlaneOptions(fake_nodes=2, gpus_per_fake_node=4, kwok_stages=(stages,))
    server = StandInServer()
    server.models = ["base", "a"]
    with ControlPlane(f"faults-{os.getpid()}", options) as cluster:
        serve_kinds(cluster, server.url)
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OTHER_LEASE}})
        yield cluster
    server.close()


@pytest.fixture(scope="session")
def account(ill_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kubeconfig of the operator's account; it may have a lease in two namespaces."""
    return restricted_kubeconfig(ill_cluster, tmp_path_factory.mktemp("account"), ("default", OTHER_LEASE))


@pytest.fixture(scope="session")
def history(ill_cluster: Cluster) -> Iterator[History]:
    """All that happens on the cluster."""
    with History(ill_cluster) as history:
        yield history


@pytest.fixture
def scene(ill_cluster: Cluster, account: Path, history: History, tmp_path: Path) -> Iterator[Scene]:
    """A job that is not yet applied, an operator that is not yet started, the proxy between, pods that are played."""
    namespace = f"f-{uuid.uuid4().hex[:10]}"
    make_namespace(ill_cluster, namespace)
    make_claims(ill_cluster, namespace)
    with FaultProxy(ill_cluster) as proxy, PodPlayer(history) as player:
        operator = OperatorProcess(proxy.kubeconfig(account, tmp_path), tmp_path / "operator.log")
        for lease in ("default", OTHER_LEASE):  # what the operator of an earlier test left when it was killed
            ill_cluster.kubectl("delete", "leases", "tuneyard-operator", "-n", lease, "--ignore-not-found")
        scene = Scene(
            ill_cluster, history, proxy, player, operator, JobOnCluster(ill_cluster, namespace), account
        )
        yield scene
        for each in scene.operators:
            each.kill()
            print(each.log.read_text()[-20_000:] if each.log.exists() else "the operator was never started")
        ill_cluster.kubectl("delete", "finetunejobs", "--all", "-n", namespace, "--wait=false")
