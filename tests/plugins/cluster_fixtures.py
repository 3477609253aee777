# SPDX-License-Identifier: Apache-2.0
"""One control plane and one cluster of real nodes per test session; tests part themselves by namespaces."""

import os
import uuid
from collections.abc import Iterator

import pytest
from tuneyard_local.cluster import Cluster, down_orphans
from tuneyard_local.controlplane import ControlPlane
from tuneyard_local.progress import Progress


@pytest.fixture(scope="session")
def _no_orphans() -> None:
    """End what earlier sessions that were killed left behind."""
    for name in down_orphans():
        Progress().say(f"ended cluster {name}, whose test session is gone")


@pytest.fixture(scope="session")
def control_plane(_no_orphans: None) -> Iterator[Cluster]:
    """A real API server, controller manager and scheduler without nodes: `.kubeconfig`, `.kubectl(...)`."""
    with ControlPlane(f"test-{os.getpid()}") as cluster:
        yield cluster


@pytest.fixture
def namespace(control_plane: Cluster) -> Iterator[str]:
    """A namespace of its own for one test on the control plane."""
    name = f"t-{uuid.uuid4().hex[:10]}"
    control_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")
