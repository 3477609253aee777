# SPDX-License-Identifier: Apache-2.0
"""Which adapters our server lists and keeps in memory, with a holder that counts instead of PyTorch."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuneyard_server.adapters import AdapterRefusedError, find_adapter
from tuneyard_server.catalog import Catalog
from tuneyard_server.errors import (
    AdapterFailedError,
    AdapterNotLoadableError,
    AdapterRequestError,
    AdapterUnknownError,
    RequestError,
    UnknownModelError,
)
from tuneyard_server.settings import Settings

SLOTS = 2


class Holder:
    """Refuses a folder whose name begins with `bad`; what it holds must never be more than the slots and one."""

    def __init__(self) -> None:
        self.held: dict[str, Path] = {}
        self._count = 0

    def load_adapter(self, path: Path) -> str:
        if path.name.startswith("bad"):
            raise AdapterRefusedError("no good")
        self._count += 1
        self.held[f"h{self._count}"] = path
        assert len(self.held) <= SLOTS + 1
        return f"h{self._count}"

    def drop_adapter(self, handle: str) -> None:
        del self.held[handle]


def write(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "/m",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": [],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    return folder


def settings(folder: Path, *, allows_updating: bool = True) -> Settings:
    return Settings("/m", "base", folder, allows_updating=allows_updating, max_cpu_loras=SLOTS)


@pytest.fixture
def holder() -> Holder:
    return Holder()


@pytest.fixture
def catalog(tmp_path: Path, holder: Holder) -> Catalog:
    return Catalog(settings(tmp_path), holder)


@pytest.mark.parametrize("name", ["../outside/a", "a/../../outside/a", "a\0", ".", ""])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    write(tmp_path / "outside" / "a")
    write(tmp_path / "in" / "a")
    assert find_adapter(tmp_path / "in", name, "/m") is None
    assert find_adapter(tmp_path / "in", str(tmp_path / "outside" / "a"), "/m") is None
    assert find_adapter(tmp_path / "in", "a", "/m") == tmp_path / "in" / "a"


def test_a_server_that_may_not_load_adapters_finds_none(tmp_path: Path, holder: Holder) -> None:
    write(tmp_path / "a")
    with pytest.raises(UnknownModelError):
        Catalog(settings(tmp_path, allows_updating=False), holder).find_handle("a")
    assert Catalog(settings(tmp_path), holder).find_handle("a") == "h1"


def test_what_was_asked_for_last_stays_in_memory(tmp_path: Path, catalog: Catalog, holder: Holder) -> None:
    for name in ("a", "b", "a", "c"):
        write(tmp_path / name)
        catalog.find_handle(name)
    assert {path.name for path in holder.held.values()} == {"a", "c"}
    assert list(catalog.listed) == ["a", "b", "c"]
    handle = catalog.find_handle("b")
    assert holder.held[str(handle)].name == "b"


def test_an_adapter_whose_files_went_while_it_was_not_in_memory_is_unknown(
    tmp_path: Path, catalog: Catalog
) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / name)
        catalog.find_handle(name)
    (tmp_path / "a" / "adapter_config.json").unlink()
    with pytest.raises(UnknownModelError):
        catalog.find_handle("a")
    assert "a" not in catalog.listed


def test_a_refused_adapter_changes_nothing(tmp_path: Path, catalog: Catalog, holder: Holder) -> None:
    good, bad = write(tmp_path / "a"), write(tmp_path / "bad")
    handle = catalog.find_handle("a")
    with pytest.raises(AdapterNotLoadableError):
        catalog.find_handle("bad")
    with pytest.raises(AdapterFailedError, match="no good"):
        catalog.load("a", str(bad), is_in_place=True)
    assert catalog.find_handle("a") == handle
    assert holder.held == {str(handle): good}
    assert list(catalog.listed) == ["a"]


def test_a_look_lists_what_is_new_and_passes_over_what_is_not_an_adapter(
    tmp_path: Path, holder: Holder, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = Catalog(settings(tmp_path / "adapters", allows_updating=False), holder)
    catalog.look()
    assert catalog.listed == {}, "a folder that is not there yet"
    stored = write(tmp_path / "adapters/.store/linked/digest")
    (tmp_path / "adapters/linked").symlink_to(stored)
    write(tmp_path / "adapters/plain")
    write(tmp_path / "adapters/another-base", base_model_name_or_path="/other")
    write(tmp_path / "adapters/bad-one")
    (tmp_path / "adapters/torn").mkdir()
    (tmp_path / "adapters/torn/adapter_config.json").write_text("{")
    (tmp_path / "adapters/base").symlink_to(stored)
    catalog.look()
    catalog.look()
    assert list(catalog.listed) == ["linked", "plain"]
    assert holder.held[str(catalog.find_handle("plain"))].name == "plain"
    said = [record.getMessage() for record in caplog.records if "is not served" in record.getMessage()]
    assert [line.split(":")[0] for line in said] == [
        "adapter bad-one is not served",
        "adapter torn is not served",
    ], "each once"
    write(tmp_path / "adapters/torn")
    catalog.look()
    assert list(catalog.listed) == ["linked", "plain", "torn"]


FOLDERS = ("a", "b", "c", "bad-d", "nowhere")
actions = st.tuples(
    st.sampled_from(["ask", "load", "replace", "unload"]), st.sampled_from("abc"), st.sampled_from(FOLDERS)
)


@given(steps=st.lists(actions, max_size=20))
def test_a_name_answers_with_the_folder_that_it_was_given_last(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, str]]
) -> None:
    """Held against the shortest model of it: a mapping of names to folders."""
    root = tmp_path_factory.mktemp("adapters")
    for folder in FOLDERS[:-1]:
        write(root / folder)
    holder, expected = Holder(), dict[str, str]()
    catalog = Catalog(settings(root), holder)
    for action, name, folder in steps:
        refusal = why_refused(action, name, folder, expected)
        with pytest.raises(refusal) if refusal else nullcontext():
            if action == "ask":
                handle = catalog.find_handle(name)
                assert holder.held[str(handle)].name == expected.setdefault(name, name)
            elif action == "unload":
                catalog.unload(name)
            else:
                catalog.load(name, str(root / folder), is_in_place=action == "replace")
        if not refusal and action == "unload":
            del expected[name]
        elif not refusal and action != "ask":
            expected[name] = folder
        assert {name: entry.path.name for name, entry in catalog.listed.items()} == expected
        assert len(holder.held) <= SLOTS


def why_refused(action: str, name: str, folder: str, listed: dict[str, str]) -> type[RequestError] | None:
    if action == "ask":
        return None
    if action == "unload":
        return None if name in listed else AdapterUnknownError
    if action == "load" and name in listed:
        return AdapterRequestError
    return {"bad-d": AdapterFailedError, "nowhere": AdapterUnknownError}.get(folder)
