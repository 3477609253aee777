# SPDX-License-Identifier: Apache-2.0
"""Container images without a registry or an image builder: layers are tars, an image is a tar of them.

A layer is kept in the cache under a digest of its recipe; an image is named by a digest of its content, so that
no name ever means something else and a node that has the name has the image.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import py_compile
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path
from typing import IO, cast

from tuneyard_local.cluster import CTR, Cluster
from tuneyard_local.environment import export_requirements, install_requirements, is_pods_python
from tuneyard_local.errors import ClusterError
from tuneyard_local.parts import build_parts, program
from tuneyard_local.paths import REPOSITORY, cache_root, locked
from tuneyard_local.progress import Progress, require_room

USER = "65532:65532"
"""The numeric user of all images but pause's (which is any)."""
LIBRARY = "opt/tuneyard/lib"
THIRD_PARTY = "opt/tuneyard/packages"
ENVIRONMENT_MOUNT = "/opt/pytorch"
"""Path at which a pod mounts the PyTorch environment, which is in no image."""
BASE_PACKAGES = ("python3", "ca-certificates", "libnuma1")
"""Debian packages of the base. libnuma1 is for vLLM: its kernels link it, and no wheel has it."""
BASE_EXCLUDES = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
MEDIA = "application/vnd.oci.image"


@dataclass(frozen=True)
class Recipe:
    """The content of one of our images besides the base: members' code, their requirements, and a command."""

    name: str
    members: tuple[tuple[str, str], ...]
    """Folder in the repository and package name of each member whose code is inside."""
    export: tuple[str, ...]
    """Arguments of `uv export` that select the third-party packages."""
    command: str
    module: str
    more_commands: tuple[tuple[str, str], ...] = ()
    """Other commands than the entry point, each with its module."""


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "trainer",
            (("api", "tuneyard_api"), ("data", "tuneyard_data"), ("trainer", "tuneyard_trainer")),
            ("--package", "tuneyard-trainer"),
            "tuneyard-trainer",
            "tuneyard_trainer.main",
        ),
        Recipe(
            "operator",
            (("api", "tuneyard_api"), ("operator", "tuneyard_operator"), ("sync", "tuneyard_sync")),
            ("--package", "tuneyard-operator", "--package", "tuneyard-sync"),
            "tuneyard-operator",
            "tuneyard_operator.main",
            (("tuneyard-adapter-sync", "tuneyard_sync.main"),),
        ),
        Recipe(
            "server",
            (("api", "tuneyard_api"), ("server", "tuneyard_server")),
            ("--package", "tuneyard-trainer"),  # The mounted environment has PyTorch and the web server.
            "tuneyard-server",
            "tuneyard_server.main",
        ),
    )
}


@dataclass(frozen=True)
class Layer:
    """An uncompressed tar, its sha256 and its size in bytes."""

    tar: Path
    digest: str
    size: int


@dataclass(frozen=True)
class Image:
    """An image: its reference `localhost/tuneyard/<name>:<digest12>` and all that it consists of."""

    reference: str
    documents: Mapping[str, bytes]
    """index.json, manifest and configuration by their path in the layout."""
    layers: tuple[Layer, ...]

    def write(self, stream: IO[bytes]) -> None:
        """Write the OCI image layout as one tar to a stream, from front to back.

        It is never kept on disk: each change of our code would cost another copy of the base.
        """
        with tarfile.open(fileobj=stream, mode="w|") as tar:
            for name, content in self.documents.items():
                _add_bytes(tar, name, content)
            for digest, layer in {layer.digest: layer for layer in self.layers}.items():
                entry = tarfile.TarInfo(f"blobs/sha256/{digest}")
                entry.size = layer.size
                with layer.tar.open("rb") as blob:
                    tar.addfile(entry, blob)


def describe_layer(tar: Path) -> Layer:
    """Read a layer's digest and size; the digest is kept beside the tar."""
    note = tar.with_suffix(".sha256")
    if not note.exists():
        with tar.open("rb") as stream:
            note.write_text(hashlib.file_digest(stream, "sha256").hexdigest())
    return Layer(tar, note.read_text(), tar.stat().st_size)


def _blob(content: object) -> tuple[bytes, str]:
    raw = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return raw, hashlib.sha256(raw).hexdigest()


def _descriptor(kind: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": f"{MEDIA}.{kind}", "digest": f"sha256:{digest}", "size": size}


def describe_image(name: str, layers: Sequence[Layer], config: Mapping[str, object]) -> Image:
    """Put an image together from its layers and its configuration (User, Env, Entrypoint, ...).

    Source: the OCI image specification 1.1, image-layout.md, manifest.md and config.md.
    """
    platform = {"architecture": "amd64", "os": "linux"}
    config_raw, config_digest = _blob(
        {
            **platform,
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in layers]},
        }
    )
    manifest_raw, manifest_digest = _blob(
        {
            "schemaVersion": 2,
            "mediaType": f"{MEDIA}.manifest.v1+json",
            "config": _descriptor("config.v1+json", config_digest, len(config_raw)),
            "layers": [_descriptor("layer.v1.tar", layer.digest, layer.size) for layer in layers],
        }
    )
    reference = f"localhost/tuneyard/{name}:{manifest_digest[:12]}"
    entry = {
        **_descriptor("manifest.v1+json", manifest_digest, len(manifest_raw)),
        "platform": platform,
        "annotations": {"io.containerd.image.name": reference},
    }
    index_raw, _ = _blob({"schemaVersion": 2, "manifests": [entry]})
    documents = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": index_raw,
        f"blobs/sha256/{config_digest}": config_raw,
        f"blobs/sha256/{manifest_digest}": manifest_raw,
    }
    return Image(reference, documents, tuple(layers))


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def _content(source: bytes | Path) -> bytes:
    return source if isinstance(source, bytes) else source.read_bytes()


def write_layer(tar_path: Path, files: Mapping[str, bytes | Path], programs: Sequence[str] = ()) -> Layer:
    """Write a layer of files by their path in the image; the same files give the same bytes.

    Files named in `programs` are executable, others are so if their source is. Owner is root, time is 0.
    """
    fresh = tar_path.with_suffix(".new")
    tar_path.parent.mkdir(parents=True, exist_ok=True)
    folders = sorted({str(parent) for name in files for parent in Path(name).parents if str(parent) != "."})
    with tarfile.open(fresh, "w") as tar:
        for name in folders:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, source in sorted(files.items()):
            is_program = name in programs or (isinstance(source, Path) and os.access(source, os.X_OK))
            _add_bytes(tar, name, _content(source), 0o755 if is_program else 0o644)
    fresh.rename(tar_path)
    tar_path.with_suffix(".sha256").unlink(missing_ok=True)
    return describe_layer(tar_path)


def _layers() -> Path:
    return cache_root() / "layers"


def build_base_layer(progress: Progress) -> Layer:
    """Debian bookworm with its Python 3.11, made by mmdebstrap from Debian's own signed archive."""
    words = ["--variant=minbase", f"--include={','.join(BASE_PACKAGES)}"]
    words += [f"--dpkgopt=path-exclude={pattern}" for pattern in BASE_EXCLUDES]
    digest = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]
    tar = _layers() / f"base-{digest}.tar"
    with locked(_layers() / ".base.lock"):
        if not tar.exists():
            require_room("a Debian root file system", _layers(), 1, 0.5)
            fresh = tar.with_suffix(".new.tar")
            argv: list[str | Path] = ["mmdebstrap", *words, "bookworm", fresh]
            env = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
            progress.run("making a Debian root file system (mmdebstrap)", argv, tar.with_suffix(".log"), env)
            fresh.rename(tar)
        return describe_layer(tar)


def _third_party_layer(recipe: Recipe, progress: Progress) -> Layer:
    requirements = export_requirements(recipe.export)
    digest = hashlib.sha256(f"{requirements}byte code {is_pods_python()}".encode()).hexdigest()[:16]
    tar = _layers() / f"packages-{digest}.tar"
    with locked(_layers() / ".packages.lock"):
        if not tar.exists():
            folder = tar.with_suffix(".folder")
            shutil.rmtree(folder, ignore_errors=True)
            install_requirements(f"packages of the {recipe.name} image", requirements, folder, progress)
            write_layer(tar, {f"{THIRD_PARTY}/{name}": path for name, path in _files(folder).items()})
            shutil.rmtree(folder)
        return describe_layer(tar)


def _files(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def _source_files(folder: Path) -> dict[str, bytes | Path]:
    """The files of a package of ours with byte code for pods, which can't write any.

    The byte code that lies beside the sources is left out: it may be older, or another Python's.
    """
    files: dict[str, bytes | Path] = {
        name: path for name, path in _files(folder).items() if "__pycache__" not in path.parts
    }
    if not is_pods_python():
        return files
    with tempfile.TemporaryDirectory() as made_in:
        made = Path(made_in) / "compiled"
        for name, path in list(files.items()):
            if name.endswith(".py"):
                mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
                py_compile.compile(str(path), str(made), name, doraise=True, invalidation_mode=mode)
                compiled = Path(name).parent / cache_from_source(Path(name).name)
                files[str(compiled)] = made.read_bytes()
    return files


def build_code_layer(recipe: Recipe) -> Layer:
    """The layer of an image with our own code, its byte code, and its commands."""
    files: dict[str, bytes | Path] = {}
    for member, package in recipe.members:
        source = REPOSITORY / member / "src" / package
        if not source.is_dir():
            raise ClusterError(f"image {recipe.name}: its code {source} is not there")
        files |= {f"{LIBRARY}/{package}/{name}": path for name, path in _source_files(source).items()}
    scripts = []
    for command, module in ((recipe.command, recipe.module), *recipe.more_commands):
        scripts.append(f"usr/local/bin/{command}")
        files[scripts[-1]] = f'#!/bin/sh\nexec python3 -m {module} "$@"\n'.encode()
    content = hashlib.sha256()
    for name, content_of in sorted(files.items()):
        raw = _content(content_of)
        content.update(f"{name}\0{len(raw)}\0".encode() + raw)
    tar = _layers() / f"code-{recipe.name}-{content.hexdigest()[:16]}.tar"
    with locked(_layers() / f".code-{recipe.name}.lock"):
        return describe_layer(tar) if tar.exists() else write_layer(tar, files, scripts)


def build_script_layer(command: str, script: str) -> Layer:
    """A layer with one program, a shell script."""
    path = f"usr/local/bin/{command}"
    tar = _layers() / f"script-{command}-{hashlib.sha256(script.encode()).hexdigest()[:16]}.tar"
    with locked(_layers() / f".script-{command}.lock"):
        return describe_layer(tar) if tar.exists() else write_layer(tar, {path: script.encode()}, [path])


def build_python(progress: Progress) -> Image:
    """The base alone: Python on Debian, for pods that try the cluster itself."""
    return describe_image(
        "python", [build_base_layer(progress)], {"User": USER, "Env": ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"]}
    )


def build_image(name: str, progress: Progress) -> Image:
    """Build one of RECIPES, or find it in the cache; the Debian packages are installed."""
    recipe = RECIPES[name]
    layers = [build_base_layer(progress), _third_party_layer(recipe, progress), build_code_layer(recipe)]
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"/{LIBRARY}:/{THIRD_PARTY}:{ENVIRONMENT_MOUNT}",
    }
    config = {
        "User": USER,
        "Env": [f"{key}={value}" for key, value in environment.items()],
        "Entrypoint": [f"/usr/local/bin/{recipe.command}"],
        "WorkingDir": "/tmp",  # noqa: S108 - in the image
    }
    return describe_image(name, layers, config)


def build_argoexec(progress: Progress) -> Image:
    """The executor of Argo Workflows, on the base that nodes have anyway."""
    build_parts(["argoexec"], progress)
    path = "usr/local/bin/argoexec"
    with locked(_layers() / ".argoexec.lock"):
        layer = write_layer(_layers() / "argoexec.tar", {path: program("argoexec")}, [path])
    environment = ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"]
    config = {"Entrypoint": ["argoexec"], "User": USER, "Env": environment}
    return describe_image("argoexec", [build_base_layer(progress), layer], config)


def build_pause(progress: Progress) -> Image:
    """The image of the process that holds a pod's namespaces; containerd needs it for every pod."""
    build_parts(["pause"], progress)
    with locked(_layers() / ".pause.lock"):
        layer = write_layer(_layers() / "pause.tar", {"pause": program("pause")}, ["pause"])
    return describe_image("pause", [layer], {"Entrypoint": ["/pause"], "User": USER})


def import_image(cluster: Cluster, node: str, image: Image) -> bool:
    """Bring an image into a node's containerd; False: it was there already."""
    present = cluster.ctr(node, "images", "list", "--quiet").stdout.split()
    if image.reference in present:
        return False
    command = [*cluster.processes.enter(node), *CTR, "images", "import", "-"]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=said)
        with process, contextlib.suppress(BrokenPipeError):  # The message of ctr says more.
            image.write(cast("IO[bytes]", process.stdin))
        if process.returncode:
            said.seek(0)
            raise ClusterError(f"importing {image.reference} into {node}: {said.read().decode().strip()}")
    return True


def name_image(cluster: Cluster, image: Image, name: str) -> bool:
    """Give an image on the nodes a second name; returns True if the name meant another image before."""
    has_moved = False
    for node in cluster.plan.nodes:
        lines = cluster.ctr(node, "images", "list", f"name=={name}", f"name=={image.reference}").stdout
        digests = {line.split()[0]: line.split()[2] for line in lines.splitlines()[1:]}
        if digests.get(name) != digests.get(image.reference):
            has_moved |= name in digests
            result = cluster.ctr(node, "images", "tag", "--force", image.reference, name)
            if result.returncode:
                raise ClusterError(f"naming {image.reference} {name} on {node}: {result.stderr.strip()}")
    return has_moved


def load_images(cluster: Cluster, *images: Image) -> None:
    """Bring images into all real nodes; images that a node has are skipped.

    Nodes side by side, but one import a node: two that share a layer get in each other's way in containerd 1.6.
    """

    def load(node: str) -> None:
        for image in images:
            import_image(cluster, node, image)

    with ThreadPoolExecutor() as pool:
        list(pool.map(load, cluster.plan.nodes))
