# SPDX-License-Identifier: Apache-2.0
"""Argo CD's application controller and repo server as plain processes, following a git repository on this machine.

They are Argo CD's own programs with the settings that a cluster's ConfigMaps hold; which setting becomes which
environment variable is read from Argo CD's own manifests, as pods would get it. Its user interface, API
server and ApplicationSet controller are left out, as nothing here needs them.
"""

from __future__ import annotations

import json
import random
import secrets
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneyard_api.yaml_io import load_all

from tuneyard_local.cluster import Cluster
from tuneyard_local.errors import ClusterError
from tuneyard_local.git_repository import GitRepository
from tuneyard_local.network import pick_ports
from tuneyard_local.parts import part_files, program
from tuneyard_local.progress import wait_until
from tuneyard_local.records import SEARCH_PATH

PARTS = ("argo-cd", "helm")
"""Parts that must be built besides those of the control plane."""
PORT_NAMES = ("git", "redis", "repo-server", "repo-server-metrics", "controller-metrics")
CRDS = ("application-crd.yaml", "appproject-crd.yaml")
"""Files with the CRDs of these programs. ApplicationSets belong to another program, and their CRD is as large as these together."""
START_SECONDS = 90.0


@dataclass(frozen=True)
class ArgoCdOptions:
    """Options of a test or a demo."""

    namespace: str = "argocd"
    resync_seconds: int = 10
    """How often git is asked for new commits (`timeout.reconciliation`, 120 s by default)."""
    helm: Path | None = None
    """The program that renders charts; None: the Helm that was built here."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of the programs, which override the settings of the cluster's ConfigMaps."""


class ArgoCd:
    """Argo CD on one cluster. Call `install`, write its ConfigMaps, then call `start`."""

    def __init__(self, cluster: Cluster, options: ArgoCdOptions | None = None) -> None:
        self.cluster, self.options = cluster, options or ArgoCdOptions()
        self.folder = cluster.folder.root / "argo-cd"
        self._ports_file = self.folder / "ports.json"
        self.ports: dict[str, int] = (
            json.loads(self._ports_file.read_text())
            if self._ports_file.exists()
            else dict(pick_ports(PORT_NAMES, random.SystemRandom()))
        )

    @property
    def charts(self) -> Path:
        """A folder that is served below `charts_url`."""
        return self.folder / "served" / "charts"

    @property
    def charts_url(self) -> str:
        """The URL at which Argo CD finds the folder `charts`."""
        return f"http://127.0.0.1:{self.ports['git']}/charts"

    def repository(self, name: str) -> GitRepository:
        """A repository that is served at `repository_url(name)`."""
        return GitRepository(self.folder / "served" / "git" / f"{name}.git")

    def repository_url(self, name: str) -> str:
        """The URL at which Argo CD finds a repository."""
        return f"http://127.0.0.1:{self.ports['git']}/git/{name}.git"

    def install(self) -> None:
        """Bring CustomResourceDefinitions, namespace and Argo CD's own default settings to the cluster, once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ports_file.write_text(json.dumps(self.ports))
        files, namespace = part_files("argo-cd") / "manifests", self.options.namespace
        objects = [_without_prose(_document(files / "crds" / name)) for name in CRDS]
        objects.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        for path in sorted((files / "base/config").glob("argocd-*.yaml")):
            settings = _document(path)
            settings["metadata"]["namespace"] = namespace
            if settings["kind"] == "Secret":
                settings["stringData"] = {"server.secretkey": secrets.token_hex(16)}
            objects.append(settings)
        self.cluster.apply(*objects)

    def start(self) -> None:
        """Start the programs with the current settings of argocd-cm and argocd-cmd-params-cm. Raises ClusterError."""
        for name in ("git", "charts"):
            (self.folder / "served" / name).mkdir(parents=True, exist_ok=True)
        base = part_files("argo-cd") / "manifests" / "base"
        address = {name: f"127.0.0.1:{port}" for name, port in self.ports.items()}
        self._run("git-server", {}, f"--listen={address['git']}", f"--root={self.folder / 'served'}")
        self._run("memory-redis", {}, f"--listen={address['redis']}")
        self._run(
            "argocd-repo-server",
            self._variables(base / "repo-server" / "argocd-repo-server-deployment.yaml"),
            "--address=127.0.0.1",
            f"--port={self.ports['repo-server']}",
            "--metrics-address=127.0.0.1",
            f"--metrics-port={self.ports['repo-server-metrics']}",
            f"--redis={address['redis']}",
            "--disable-tls",
        )
        self._wait_for("repo-server")
        self.start_controller()

    def start_controller(self) -> None:
        """Start the application controller alone, after it was stopped: it reads its settings only at its start."""
        base = part_files("argo-cd") / "manifests" / "base"
        self._run(
            "argocd-application-controller",
            self._variables(
                base / "application-controller" / "argocd-application-controller-statefulset.yaml"
            ),
            f"--kubeconfig={self.cluster.kubeconfig}",
            f"--namespace={self.options.namespace}",
            f"--metrics-port={self.ports['controller-metrics']}",
            f"--redis=127.0.0.1:{self.ports['redis']}",
            f"--repo-server=127.0.0.1:{self.ports['repo-server']}",
            "--repo-server-plaintext",
        )
        self._wait_for("controller-metrics")

    def _run(self, name: str, variables: Mapping[str, str], *words: str) -> None:
        path = program(name)
        setting = [f"{key}={value}" for key, value in sorted(variables.items())]
        self.cluster.processes.start(name, ["/usr/bin/env", *setting, path, *words], becomes=str(path))

    def _wait_for(self, port: str) -> None:
        def is_open() -> bool:
            self.cluster.processes.require_alive()
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", self.ports[port])) == 0

        wait_until(f"Argo CD's {port}", is_open, START_SECONDS)

    def _variables(self, manifest: Path) -> dict[str, str]:
        settings = {name: self._settings(name) for name in ("argocd-cm", "argocd-cmd-params-cm")}
        found = {}
        for name, (config_map, key) in _variable_sources(_document(manifest)):
            if key in settings.get(config_map, {}):
                found[name] = settings[config_map][key]
        return {**found, **self._local_variables(), **self.options.environment}

    def _settings(self, name: str) -> dict[str, str]:
        path = f"/api/v1/namespaces/{self.options.namespace}/configmaps/{name}"
        data: dict[str, str] = (self.cluster.get(path) or {}).get("data") or {}
        return data

    def _local_variables(self) -> dict[str, str]:
        """Environment variables that replace what a pod of Argo CD has and a process on this machine lacks."""
        folders = {
            "ARGOCD_TLS_DATA_PATH": "tls",
            "ARGOCD_SSH_DATA_PATH": "ssh",
            "ARGOCD_GNUPGHOME": "gpg/keys",
            "ARGOCD_GPG_DATA_PATH": "gpg/source",
            "ARGOCD_PLUGINSOCKFILEPATH": "plugins",
            "TMPDIR": "tmp",
            "PATH": "bin",
        }
        paths = {name: self.folder / folder for name, folder in folders.items()}
        for path in paths.values():
            path.mkdir(parents=True, exist_ok=True)
        (paths["ARGOCD_SSH_DATA_PATH"] / "ssh_known_hosts").touch()
        helm = paths["PATH"] / "helm"
        if not helm.is_symlink():
            helm.symlink_to(self.options.helm or program("helm"))
        return {
            **{name: str(path) for name, path in paths.items()},
            "PATH": f"{paths['PATH']}:{SEARCH_PATH}",
            "ARGOCD_FAKE_IN_CLUSTER": "true",
            "ARGOCD_GPG_ENABLED": "false",
            "ARGOCD_RECONCILIATION_TIMEOUT": f"{self.options.resync_seconds}s",
            "ARGOCD_RECONCILIATION_JITTER": "0s",
            "KUBECONFIG": str(self.cluster.kubeconfig),
        }


def _document(path: Path) -> Any:
    documents = [json.loads(json.dumps(entry.value)) for entry in load_all(path.read_text(), str(path))]
    if len(documents) != 1:
        raise ClusterError(f"{path}: one document was expected (got {len(documents)})")
    return documents[0]


def _without_prose(schema: Any) -> Any:
    """A CRD without its descriptions, which are two thirds of it and cost the API server seconds."""
    if isinstance(schema, list):
        return [_without_prose(entry) for entry in schema]
    if isinstance(schema, dict):
        kept = ((k, v) for k, v in schema.items() if not (k == "description" and isinstance(v, str)))
        return {key: _without_prose(value) for key, value in kept}
    return schema


def _variable_sources(workload: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, str]]]:
    for container in workload["spec"]["template"]["spec"]["containers"]:
        for variable in container.get("env", ()):
            reference = variable.get("valueFrom", {}).get("configMapKeyRef")
            if reference:
                yield variable["name"], (reference["name"], reference["key"])
