# SPDX-License-Identifier: Apache-2.0
"""One Argo CD for all tests of the tier; each test module brings one environment to it and takes it away again."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
# The operator's own harness: one test lets it run beside Argo CD.
sys.path[:0] = [
    str(_HERE.parent / folder) for folder in ("gitops/harness", "cluster/harness", "reconcile/fakes")
]

from gitops_stack import GitOpsStack  # noqa: E402


@pytest.fixture(scope="session")
def gitops(_no_orphans: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitOpsStack]:
    """Argo CD on a control plane, following a repository of the session's own."""
    with GitOpsStack(f"gitops-{os.getpid()}", tmp_path_factory.mktemp("gitops")) as stack:
        yield stack
