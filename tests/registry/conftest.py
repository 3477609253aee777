# SPDX-License-Identifier: Apache-2.0
"""A registry, a server's folder and a server for each test; and stores that speak S3."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.registry.bench import Bench, make_bench
from support.registry.s3_stores import Store, moto_store, versity_store
from support.registry.vllm_stand_in import VllmStandIn, running
from tuneyard_local.parts import build_parts
from tuneyard_local.progress import Progress


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with running(VllmStandIn()) as vllm:
        yield make_bench(tmp_path, vllm)


@pytest.fixture(scope="module", params=["moto", pytest.param("versitygw", marks=pytest.mark.cluster)])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Moto, which stands in for a store; and versitygw, a real one, where the parts of the local cluster are built."""
    if request.param == "moto":
        with moto_store() as store:
            yield store
        return
    build_parts(["versitygw"], Progress())
    with versity_store(tmp_path_factory.mktemp("versitygw")) as store:
        yield store


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return f"teams/{request.node.name.split('[')[0].replace('_', '-')}"
