# SPDX-License-Identifier: Apache-2.0
"""Our server as a process on a random Llama, one for all tests that only ask it, as PyTorch starts slowly."""

from collections.abc import Iterator

import pytest
from support.adapter_servers import AdapterServer, running


@pytest.fixture(scope="session")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdapterServer]:
    with running("own", tmp_path_factory.mktemp("serving")) as server:
        yield server
