# SPDX-License-Identifier: Apache-2.0
"""Argo Workflows on the cluster of real nodes, with the forms of the namespace of jobs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bench import Bench
from tuneyard.client import Client
from tuneyard_local.argo_workflows import NAME, ArgoWorkflows
from tuneyard_local.demo.pipeline import install_argo
from tuneyard_local.progress import Progress


@pytest.fixture(scope="session")
def argo_workflows(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArgoWorkflows]:
    """The controller, the templates of the namespace of jobs, dirty records, and a claim for curated ones."""
    yield install_argo(bench.cluster, bench.parts, tmp_path_factory.mktemp("raw"), Progress())
    bench.cluster.processes.stop(NAME)


@pytest.fixture(scope="session")
def client(bench: Bench) -> Client:
    """The typed client of the namespace of jobs."""
    return Client(bench.namespace, kubeconfig=Path(bench.cluster.kubeconfig))
