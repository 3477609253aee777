# SPDX-License-Identifier: Apache-2.0
"""A registry, a server's folder and a server for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.registry.bench import Bench, make_bench
from support.registry.vllm_stand_in import VllmStandIn, running


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with running(VllmStandIn()) as vllm:
        yield make_bench(tmp_path, vllm)
