# SPDX-License-Identifier: Apache-2.0
"""What the image writer writes is an OCI layout whose every digest is true."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tuneyard_local import images
from tuneyard_local.environment import is_pods_python
from tuneyard_local.images import LIBRARY, RECIPES, Image, describe_image, write_layer
from tuneyard_local.paths import REPOSITORY

CONFIG = {"User": "65532:65532", "Entrypoint": ["/bin/app"]}


def read_tar(raw: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        members = [member for member in tar.getmembers() if member.isfile()]
        return {member.name: (tar.extractfile(member) or io.BytesIO()).read() for member in members}


def written(image: Image) -> dict[str, bytes]:
    stream = io.BytesIO()
    image.write(stream)
    return read_tar(stream.getvalue())


@pytest.fixture
def image(tmp_path: Path) -> Image:
    base = write_layer(tmp_path / "base.tar", {"etc/motd": b"hello"})
    code = write_layer(
        tmp_path / "code.tar", {"bin/app": b"#!/bin/sh\n", "lib/a/b.py": b"x = 1\n"}, ["bin/app"]
    )
    return describe_image("app", [base, code], CONFIG)


def follow(files: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    algorithm, digest = descriptor["digest"].split(":")
    content = files[f"blobs/{algorithm}/{digest}"]
    assert hashlib.sha256(content).hexdigest() == digest
    assert len(content) == descriptor["size"]
    return content


def test_every_blob_has_the_digest_and_size_that_name_it(image: Image) -> None:
    files = written(image)
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(follow(files, entry))
    config = json.loads(follow(files, manifest["config"]))
    layers = [follow(files, layer) for layer in manifest["layers"]]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    assert config["config"] == CONFIG
    assert read_tar(layers[1])["lib/a/b.py"] == b"x = 1\n"
    assert len(files) == 6


def test_the_name_is_that_of_the_content(image: Image) -> None:
    (entry,) = json.loads(written(image)["index.json"])["manifests"]
    digest = entry["digest"].removeprefix("sha256:")
    assert image.reference == f"localhost/tuneyard/app:{digest[:12]}"
    assert entry["annotations"]["io.containerd.image.name"] == image.reference
    other = describe_image("app", image.layers, {**CONFIG, "User": "1:1"})
    assert other.reference != image.reference


def test_the_same_layer_twice_is_written_once(image: Image) -> None:
    twice = describe_image("twice", [image.layers[0], image.layers[0]], {})
    assert len([name for name in written(twice) if name.startswith("blobs/")]) == 3


def test_layers_are_the_same_bytes_whatever_the_order_and_the_time(tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"content")
    first = write_layer(tmp_path / "1.tar", {"a/x": b"1", "b/y": source})
    source.touch()
    second = write_layer(tmp_path / "2.tar", {"b/y": source, "a/x": b"1"})
    assert first.digest == second.digest
    assert first.tar.read_bytes() == second.tar.read_bytes()


def test_folders_come_first_and_programs_are_executable(image: Image) -> None:
    with tarfile.open(image.layers[1].tar) as tar:
        modes = {member.name: (member.isdir(), member.mode, member.uid, member.mtime) for member in tar}
    assert modes["lib/a"] == (True, 0o755, 0, 0)
    assert modes["bin/app"] == (False, 0o755, 0, 0)
    assert modes["lib/a/b.py"] == (False, 0o644, 0, 0)
    assert list(modes).index("lib") < list(modes).index("lib/a") < list(modes).index("lib/a/b.py")


def test_a_layer_that_was_written_anew_has_a_new_digest(tmp_path: Path) -> None:
    first = write_layer(tmp_path / "x.tar", {"a": b"1"})
    assert write_layer(tmp_path / "x.tar", {"a": b"2"}).digest != first.digest


@pytest.mark.skipif(not is_pods_python(), reason="this Python writes byte code that pods do not read")
def test_pods_run_the_byte_code_of_the_image_and_compile_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_layers", lambda: tmp_path)
    with tarfile.open(images.build_code_layer(RECIPES["server"]).tar) as tar:
        tar.extractall(tmp_path / "image", filter="data")
    library = tmp_path / "image" / LIBRARY
    source = library / "tuneyard_api" / "names.py"
    source.write_text("raise SystemExit('the source was read')")
    ask = [sys.executable, "-c", "import tuneyard_api.names as names; print(names.__file__)"]
    done = subprocess.run(ask, env={"PYTHONPATH": str(library)}, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(source), done.stderr


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_every_recipe_names_its_members_code(recipe: Any) -> None:
    assert dict(recipe.members)["api"] == "tuneyard_api"
    for module in (recipe.module, *(module for _, module in recipe.more_commands)):
        assert module.split(".")[0] in dict(recipe.members).values()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_every_command_of_an_image_does_something(recipe: Any) -> None:
    members = {package: folder for folder, package in recipe.members}
    for module in (recipe.module, *(module for _, module in recipe.more_commands)):
        package, _, name = module.partition(".")
        text = (REPOSITORY / members[package] / "src" / package / f"{name}.py").read_text()
        assert '\nif __name__ == "__main__":\n' in text, module


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_every_member_that_a_member_needs_is_inside_too(recipe: Any) -> None:
    inside = {f"tuneyard-{folder}" for folder, _ in recipe.members}
    for folder, _ in recipe.members:
        project = tomllib.loads((REPOSITORY / folder / "pyproject.toml").read_text())["project"]
        assert {name for name in project["dependencies"] if name.startswith("tuneyard-")} <= inside
