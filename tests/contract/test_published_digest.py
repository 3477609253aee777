# SPDX-License-Identifier: Apache-2.0
"""The digest that publish writes into status, and that a server tells adapters apart by."""

import hashlib
from pathlib import Path

import pytest
from tuneyard_api.registry import published_digest


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"abc")
    (tmp_path / "adapter_config.json").write_bytes(b"{}")
    (tmp_path / "README.md").write_bytes(b"a card is no part of the adapter")
    return tmp_path


def test_it_is_over_name_length_and_content_in_the_order_of_names(adapter: Path) -> None:
    said = b"adapter_config.json\x002\x00{}adapter_model.safetensors\x003\x00abc"
    assert published_digest(adapter) == f"sha256:{hashlib.sha256(said).hexdigest()}"


def test_a_model_has_the_digest_of_the_files_that_are_named_in_whatever_order(adapter: Path) -> None:
    names = ["config.json", "README.md"]
    (adapter / "config.json").write_bytes(b"")
    said = b"README.md\x0032\x00a card is no part of the adapterconfig.json\x000\x00"
    assert published_digest(adapter, names) == f"sha256:{hashlib.sha256(said).hexdigest()}"
    assert published_digest(adapter, reversed(names)) == published_digest(adapter, names)


def test_a_file_that_is_missing_is_no_digest(adapter: Path) -> None:
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"adapter_config\.json"):
        published_digest(adapter)
