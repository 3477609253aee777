# SPDX-License-Identifier: Apache-2.0
"""Tuneyard installed on the session's cluster of real nodes."""

import pytest
from e2e_bench import NAMESPACE, Bench
from tuneyard_local import workbench
from tuneyard_local.cluster import Cluster
from tuneyard_local.progress import Progress


@pytest.fixture(scope="session")
def bench(cluster: Cluster) -> Bench:
    """The local cluster with Tuneyard installed as the demo installs it."""
    progress = Progress()
    parts = workbench.build(progress)
    workbench.install(cluster, parts, NAMESPACE, progress)
    return Bench(cluster, parts, NAMESPACE)
