# SPDX-License-Identifier: Apache-2.0
"""The clusters of a test session; each test has its own namespace.

All tests of tier cluster take theirs from `clusters`: our local control plane or, with TUNEYARD_CLUSTER=kind, one that
kind makes. Tiers gitops and e2e need ours: Argo CD runs beside its processes, and real nodes have fake GPUs.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest
from tuneyard_local import argo_workflows, argocd, installation, native, vllm
from tuneyard_local.cluster import Cluster, down_orphans
from tuneyard_local.controlplane import ControlPlane, ControlPlaneOptions
from tuneyard_local.native import NativeCluster
from tuneyard_local.parts import CONTROL_PLANE_PARTS, build_parts, missing_parts, remove_build_cache
from tuneyard_local.paths import cache_root, locked
from tuneyard_local.progress import Progress, wait_until

from support import kind
from support.bench import NAMESPACE, Bench
from support.tiers import tier_of

CLUSTER_PARTS = ControlPlaneOptions(fake_nodes=1).parts()
S3_STORE = "versitygw"
PARTS_OF_FIXTURES = {
    "airgapped_tree": (S3_STORE,),
    "argo_expressions": ("argo-expressions",),
    "argo_server": ("workflow-controller", "argo"),
    "argo_workflows": argo_workflows.PARTS,
    "argocd_crds": ("argo-cd",),
    "helm": ("helm",),
    "helm_is_built": ("helm",),
    "kueue": ("kueue",),
}
"""Requirements of a test beyond its tier, by the fixture that it requests."""
VLLM_FIXTURES = {"open_tree", "airgapped_tree"}
"""Fixtures of other tiers that need vLLM's environment."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the chosen tests need before the first one starts: a cold build outlasts a test's time limit."""
    if session.config.option.collectonly:
        return
    items = [item for item in session.items if not item.get_closest_marker("skip")]
    tiers = {tier_of(item) for item in items}
    fixtures = {name for item in items for name in getattr(item, "fixturenames", ())}
    names = [
        *((kind.PARTS if kind.is_chosen() else CLUSTER_PARTS) if "cluster" in tiers else ()),
        *((S3_STORE,) if "cluster" in tiers else ()),
        *(part for fixture, parts in PARTS_OF_FIXTURES.items() if fixture in fixtures for part in parts),
        *((*CONTROL_PLANE_PARTS, *argocd.PARTS) if "gitops" in tiers else ()),
        *((*native.NATIVE_PARTS, "helm") if "e2e" in tiers else ()),
    ]
    needs_vllm = "vllm" in tiers or not VLLM_FIXTURES.isdisjoint(fixtures)
    if not missing_parts(names) and not needs_vllm:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    # The second of two workers waits, and finds everything built.
    with capture.global_and_fixture_disabled(), locked(cache_root() / "parts" / ".session.lock"):
        progress = Progress()
        if needs_vllm:
            vllm.build_vllm_environment(progress)
        if build_parts(names, progress) and not os.environ.get("TUNEYARD_KEEP_BUILD_CACHE"):
            remove_build_cache(progress)


@pytest.fixture(scope="session")
def _no_orphans() -> None:
    """End what earlier sessions that were killed left behind."""
    for name in down_orphans():
        Progress().say(f"ended cluster {name}, whose test session is gone")
        if kind.is_chosen():
            kind.delete(name)


class Clusters(Protocol):
    """The source of clusters for tests of tier cluster."""

    def __call__(
        self, name: str, options: ControlPlaneOptions | None = None, *, local_because: str = ""
    ) -> Cluster:
        """A new cluster, which ends with the session; it has no nodes but the fake ones of `options`.

        `local_because`: why it must be ours; with kind the test is skipped and says so.
        """


@pytest.fixture(scope="session")
def clusters(_no_orphans: None) -> Iterator[Clusters]:
    """Our local cluster or, with TUNEYARD_CLUSTER=kind, kind's."""
    with ExitStack() as stack:

        def take(
            name: str, options: ControlPlaneOptions | None = None, *, local_because: str = ""
        ) -> Cluster:
            full_name, options = f"{name}-{os.getpid()}", options or ControlPlaneOptions()
            if not kind.is_chosen():
                return stack.enter_context(ControlPlane(full_name, options))
            if local_because:
                pytest.skip(f"not on kind: {local_because}")
            return stack.enter_context(kind.running(full_name, options))

        yield take


@pytest.fixture(scope="session")
def _ours() -> None:
    """Our local cluster, for tests of that cluster itself."""
    if kind.is_chosen():
        pytest.skip("not on kind: this tests the local control plane itself")


@pytest.fixture(scope="session")
def control_plane(clusters: Clusters) -> Cluster:
    """A real API server, controller manager and scheduler without nodes: `.kubeconfig`, `.kubectl(...)`."""
    return clusters("test")


@pytest.fixture(scope="session")
def cluster(_no_orphans: None) -> Iterator[NativeCluster]:
    """Three real nodes with 8 fake GPUs each, so that one can be lost where two are needed: `.kubeconfig`, `.kubectl(...)`, `.load_images("trainer", ...)`."""
    name = f"nodes-{os.getpid()}"
    with native.running(name, native.NativeOptions(nodes=3, gpus=8), Progress()) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def bench(cluster: NativeCluster) -> Bench:
    """The cluster of real nodes with Tuneyard installed as the demo installs it."""
    progress = Progress()
    parts = installation.build(progress)
    installation.install(cluster, parts, NAMESPACE, progress)
    return Bench(cluster, parts, NAMESPACE)


@pytest.fixture(scope="session")
def helm_is_built() -> None:
    """Make `program("helm")` available: parts that tests name are built before the first test starts."""


@pytest.fixture
def restricted(cluster: NativeCluster) -> Iterator[str]:
    """A namespace of its own on the real nodes, which enforces the restricted pod security profile."""
    name = f"t-{uuid.uuid4().hex[:10]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    wait_until("the namespace's account", lambda: cluster.get(account) is not None, 120)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def namespace(control_plane: Cluster) -> Iterator[str]:
    """A namespace of its own for one test on the control plane."""
    name = f"t-{uuid.uuid4().hex[:10]}"
    control_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")
