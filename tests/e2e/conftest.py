# SPDX-License-Identifier: Apache-2.0
"""Argo Workflows on the cluster of real nodes, with the forms of the namespace of jobs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bench import Bench
from support.workflows import CLEAN
from tuneyard.client import Client
from tuneyard_local import images
from tuneyard_local.argo_workflows import NAME, ArgoWorkflows
from tuneyard_local.forms import install_forms, write_raw_records
from tuneyard_local.progress import Progress


@pytest.fixture(scope="session")
def argo_workflows(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArgoWorkflows]:
    """The controller, the templates of the namespace of jobs, dirty records, and a claim for curated ones."""
    executor = images.build_argoexec(Progress())
    images.load_images(bench.cluster, executor)
    argo = ArgoWorkflows(bench.cluster, executor.reference)
    argo.install()
    argo.start()
    raw = tmp_path_factory.mktemp("raw")
    write_raw_records(bench.parts.datasets / "docstrings" / "train.jsonl", raw, CLEAN)
    install_forms(bench.cluster, bench.parts, bench.namespace, raw)
    yield argo
    bench.cluster.processes.stop(NAME)


@pytest.fixture(scope="session")
def client(bench: Bench) -> Client:
    """The typed client of the namespace of jobs."""
    return Client(bench.namespace, kubeconfig=Path(bench.cluster.kubeconfig))
