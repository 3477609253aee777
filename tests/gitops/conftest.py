# SPDX-License-Identifier: Apache-2.0
"""One Argo CD for all tests of the tier; each test module brings one environment to it and takes it away again."""

import os
from collections.abc import Iterator

import pytest
from support.gitops.stack import GitOpsStack


@pytest.fixture(scope="session")
def gitops(_no_orphans: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitOpsStack]:
    """Argo CD on a control plane, following a repository of the session's own."""
    with GitOpsStack(f"gitops-{os.getpid()}", tmp_path_factory.mktemp("gitops")) as stack:
        yield stack
