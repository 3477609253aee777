# SPDX-License-Identifier: Apache-2.0
"""The sources of a cluster: `native` (made here), `kind` (made by kind in Docker), or `existing`.

`native` is what the demo and the tests run on. `kind` follows its documentation and was not tried: no
Docker daemon answered where this was made. Its fake GPUs are numbers in the node's status, without a device
plugin, and its default StorageClass has no ReadWriteMany. `existing` never makes or deletes a cluster.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tuneyard_local import native
from tuneyard_local.errors import ClusterError
from tuneyard_local.images import Image, load_images
from tuneyard_local.paths import ClusterFolder, script
from tuneyard_local.progress import Progress

ALLOWED_CONTEXTS = "TUNEYARD_ALLOWED_CONTEXTS"
KIND_DOCKER_SECONDS = 10.0


class Provider(Protocol):
    """A source of a cluster."""

    def up(self, progress: Progress) -> Path:
        """Make the cluster usable; returns its administrator's kubeconfig. Raises ClusterError."""

    def down(self) -> None:
        """Undo `up`."""

    def load_images(self, *images: Image) -> None:
        """Load our images onto the nodes, or raise ClusterError when we can't."""


@dataclass(frozen=True)
class Native:
    """Real nodes on this machine."""

    name: str
    options: native.NativeOptions = field(default_factory=native.NativeOptions)

    def up(self, progress: Progress) -> Path:
        """Bring the cluster up; packages are installed and parts are built."""
        return native.up(self.name, self.options, progress).kubeconfig

    def down(self) -> None:
        """End the cluster, leaving nothing."""
        native.NativeCluster(self.name).down()

    def load_images(self, *images: Image) -> None:
        """Import into each node what it lacks."""
        load_images(native.NativeCluster(self.name), *images)


def has_docker() -> bool:
    """Whether a Docker daemon answers; a client alone is not enough."""
    try:
        result = subprocess.run(
            ["docker", "info", "--format", "{{.ServerVersion}}"],
            capture_output=True, check=False, timeout=KIND_DOCKER_SECONDS,
        )  # fmt: skip
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0 and bool(result.stdout.strip())


def kind_config(nodes: int) -> str:
    """Kind's configuration: a control plane and so many workers."""
    roles = [{"role": "control-plane"}, *([{"role": "worker"}] * nodes)]
    return json.dumps({"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": roles})


@dataclass(frozen=True)
class Kind:
    """A cluster in Docker containers by kind."""

    name: str
    nodes: int = 1
    gpus: int = 8
    program: Path | None = None
    """The kind program; None: the one on the search path."""

    def _kind(self, *args: str, stdin: str | None = None) -> str:
        found = self.program or shutil.which("kind")
        if found is None:
            raise ClusterError("kind is not on the search path; see https://kind.sigs.k8s.io")
        return _checked([str(found), *args], stdin)

    @property
    def _kubeconfig(self) -> Path:
        return ClusterFolder(self.name).root / "kubeconfig"

    def up(self, progress: Progress) -> Path:
        """Make the cluster and give its workers fake GPUs."""
        if not has_docker():
            raise ClusterError("kind needs a Docker daemon, and none answers `docker info`")
        progress.say("creating a kind cluster")
        self._kubeconfig.parent.mkdir(parents=True)
        where = ["--name", self.name, "--kubeconfig", str(self._kubeconfig)]
        self._kind(
            "create", "cluster", *where, "--wait", "120s", "--config", "-", stdin=kind_config(self.nodes)
        )
        count = {"nvidia.com/gpu": str(self.gpus)}
        patch = json.dumps({"status": {"capacity": count, "allocatable": count}})
        kubectl = [str(script("kubectl")), "--kubeconfig", str(self._kubeconfig)]
        workers = "!node-role.kubernetes.io/control-plane"
        for node in _checked([*kubectl, "get", "nodes", "-l", workers, "-o", "name"]).split():
            _checked([*kubectl, "patch", node, "--subresource=status", "--type=merge", "-p", patch])
        return self._kubeconfig

    def down(self) -> None:
        """Delete the cluster."""
        self._kind("delete", "cluster", "--name", self.name, "--kubeconfig", str(self._kubeconfig))
        shutil.rmtree(self._kubeconfig.parent)

    def load_images(self, *images: Image) -> None:
        """Load images into kind's nodes by way of an archive."""
        for image in images:
            with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
                with Path(archive.name).open("wb") as stream:
                    image.write(stream)
                self._kind("load", "image-archive", archive.name, "--name", self.name)


def allowed_contexts(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The contexts that the user allows, from the comma list in TUNEYARD_ALLOWED_CONTEXTS."""
    return tuple(name.strip() for name in environment.get(ALLOWED_CONTEXTS, "").split(",") if name.strip())


@dataclass(frozen=True)
class Existing:
    """A cluster of the user's own, by a kubeconfig context that the user has put on the allow list."""

    name: str
    context: str
    allowed: tuple[str, ...]

    def require_allowed(self) -> None:
        """Raise ClusterError unless the context is on the list: a typo must not reach a production cluster."""
        if self.context not in self.allowed:
            listed = ", ".join(self.allowed) or "nothing"
            raise ClusterError(
                f"context {self.context!r} is not allowed ({ALLOWED_CONTEXTS} holds {listed}); "
                f"try: export {ALLOWED_CONTEXTS}={self.context}"
            )

    def up(self, progress: Progress) -> Path:
        """Write a kubeconfig of that context alone, after asking the cluster whether it is ready."""
        self.require_allowed()
        kubectl = [str(script("kubectl")), "--context", self.context]
        _checked([*kubectl, "get", "--raw", "/readyz", "--request-timeout=10s"])
        kubeconfig = ClusterFolder(self.name).root / "kubeconfig"
        kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(
            _checked([*kubectl, "config", "view", "--minify", "--flatten", "--output=json"])
        )
        progress.say(f"the cluster of context {self.context} answers")
        return kubeconfig

    def down(self) -> None:
        """Delete our copy of the kubeconfig; the cluster is not ours to end."""
        (ClusterFolder(self.name).root / "kubeconfig").unlink(missing_ok=True)
        ClusterFolder(self.name).root.rmdir()

    def load_images(self, *images: Image) -> None:
        """Always refuses: the nodes of an existing cluster pull from a registry."""
        names = ", ".join(image.reference for image in images)
        raise ClusterError(
            f"an existing cluster pulls its images; try: make images REGISTRY=... (wanted: {names})"
        )


def _checked(argv: Sequence[str], stdin: str | None = None) -> str:
    result = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    if result.returncode:
        raise ClusterError(f"{' '.join(argv[:3])}: {result.stderr.strip()}")
    return result.stdout


def provider_of(options: Mapping[str, Any], environment: Mapping[str, str]) -> Provider:
    """The provider that the command's options name (`provider`, `name`, `nodes`, `gpus`, `context`)."""
    if options["provider"] == "existing":
        if not options["context"]:
            raise ClusterError("provider existing needs --context, the name of a kubeconfig context")
        return Existing(options["name"], options["context"], allowed_contexts(environment))
    if options["provider"] == "kind":
        return Kind(options["name"], options["nodes"], options["gpus"])
    return Native(options["name"], native.NativeOptions(options["nodes"], options["gpus"]))
