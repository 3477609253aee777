# SPDX-License-Identifier: Apache-2.0
"""What counts as an adapter on disk, and what the server does about a change."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuneyard_server.catalog import AdapterRefusedError, Catalog, plan_changes
from tuneyard_server.registry import AdapterFiles, Registry, Scan


def weights_bytes(size: int = 8) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def write(folder: Path, *, config: str = "{}", weights: bytes | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(config)
    (folder / "adapter_model.safetensors").write_bytes(weights_bytes() if weights is None else weights)
    return folder


def test_a_registry_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert Registry(tmp_path / "later").scan() == Scan()


def test_names_with_a_dot_in_front_and_files_are_not_looked_at(tmp_path: Path) -> None:
    write(tmp_path / ".being-written")
    (tmp_path / "README.md").write_text("hello")
    write(tmp_path / "whole")
    scan = Registry(tmp_path).scan()
    assert [a.name for a in scan.adapters] == ["whole"]
    assert scan.incomplete == ()


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no configuration": (lambda f: (f / "adapter_config.json").unlink(), "no adapter_config.json"),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors"),
    "half a configuration": (lambda f: (f / "adapter_config.json").write_text('{"r": 1'), "not whole JSON"),
    "empty weights": (
        lambda f: (f / "adapter_model.safetensors").write_bytes(b""),
        "no whole safetensors header",
    ),
    "half a header": (
        lambda f: (f / "adapter_model.safetensors").write_bytes(weights_bytes()[:20]),
        "its header alone",
    ),
    "half the tensors": (
        lambda f: (f / "adapter_model.safetensors").write_bytes(weights_bytes()[:-1]),
        "bytes",
    ),
    "more than the tensors": (
        lambda f: (f / "adapter_model.safetensors").write_bytes(weights_bytes() + b"x"),
        "bytes",
    ),
    "a header of another shape": (
        lambda f: (f / "adapter_model.safetensors").write_bytes(struct.pack("<Q", 2) + b"[]"),
        "no whole safetensors header",
    ),
}


@pytest.mark.parametrize(("break_it", "message"), BREAKS.values(), ids=BREAKS.keys())
def test_what_is_not_whole_is_no_adapter_and_says_why(
    tmp_path: Path, break_it: Callable[[Path], object], message: str
) -> None:
    folder = write(tmp_path / "a")
    registry = Registry(tmp_path)
    assert len(registry.scan().adapters) == 1
    break_it(folder)
    scan = registry.scan()
    assert scan.adapters == ()
    assert message in scan.incomplete[0][1]


def test_the_digest_follows_the_content_and_not_the_time(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    registry = Registry(tmp_path)
    first = registry.scan().adapters[0].digest
    (folder / "adapter_config.json").write_text("{}")
    assert registry.scan().adapters[0].digest == first
    (folder / "adapter_config.json").write_text('{"r": 2}')
    assert registry.scan().adapters[0].digest != first


def files(name: str, digest: str) -> AdapterFiles:
    return AdapterFiles(name, Path("/registry") / name, digest, 0)


names = st.sampled_from(["a", "b", "c", "d"])
digests = st.dictionaries(names, st.sampled_from(["1", "2", "3"]))


@given(served=digests, refused=digests, found=digests)
def test_after_the_changes_all_that_is_found_is_served_or_was_refused(
    served: dict[str, str], refused: dict[str, str], found: dict[str, str]
) -> None:
    refused = {name: digest for name, digest in refused.items() if name not in served}
    changes = plan_changes(served, refused, {name: files(name, digest) for name, digest in found.items()})
    after = {n: d for n, d in served.items() if n not in changes.drop} | {
        f.name: f.digest for f in changes.load
    }
    assert all(refused.get(name) == digest or after[name] == digest for name, digest in found.items())
    assert set(after) <= set(found)
    assert not {f.name for f in changes.load} & (set(served) - set(changes.drop))


class Holder:
    """Stands for the engine; refuses digests that begin with `bad`."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.tries = 0

    def load_adapter(self, files: AdapterFiles) -> str:
        self.tries += 1
        if files.digest.startswith("bad"):
            raise AdapterRefusedError("made for another model")
        self.loaded.append(f"{files.name}@{files.digest}")
        return self.loaded[-1]

    def drop_adapter(self, handle: str) -> None:
        self.loaded.remove(handle)


def test_a_refused_adapter_is_tried_once_a_digest_and_never_answers_with_old_weights() -> None:
    holder = Holder()
    catalog = Catalog("base", holder)
    catalog.update(Scan((files("a", "good1"), files("b", "good1"))))
    for _ in range(3):
        catalog.update(Scan((files("a", "bad1"), files("b", "good1"))))
    assert holder.loaded == ["b@good1"]
    assert holder.tries == 3
    assert catalog.refused["a"].message == "made for another model"
    catalog.update(Scan((files("a", "good2"), files("b", "good1"))))
    assert catalog.names == ["base", "a", "b"]
    assert catalog.refused == {}
