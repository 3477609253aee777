# SPDX-License-Identifier: Apache-2.0
"""The rollout of a rendered tree: files that Argo CD follows, and progress of Applications. Pure but for reading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneyard_api.yaml_io import load_all

WAVE = "argocd.argoproj.io/sync-wave"
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Tree:
    """A committed environment with the address of a repository that answers here."""

    name: str
    files: Mapping[str, str]
    """Path -> text of all files that its Applications read from the repository."""

    def documents(self, folder: str) -> list[Any]:
        """What the YAML files below a path say, by the order of their names."""
        texts = [(path, text) for path, text in sorted(self.files.items()) if path.startswith(folder)]
        return [entry.value for path, text in texts for entry in load_all(text, path)]

    def named(self, kind: str) -> dict[str, Any]:
        """The roots and their children of a kind, by name."""
        found = self.documents(f"argocd-apps/{self.name}/platform")
        return {entry["metadata"]["name"]: entry for entry in found if entry["kind"] == kind}

    @property
    def jobs(self) -> Json:
        """The Application of the FineTuneJobs."""
        label = "tuneyard.io/component"
        applications = self.named("Application").values()
        return next(a for a in applications if a["metadata"]["labels"][label].startswith("jobs-"))

    @property
    def namespace(self) -> str:
        """The namespace of the jobs."""
        return str(self.jobs["spec"]["destination"]["namespace"])

    @property
    def job_names(self) -> list[str]:
        """The FineTuneJobs in git."""
        found = self.documents(f"{self.jobs['spec']['source']['path']}/")
        return [str(job["metadata"]["name"]) for job in found]


def read_tree(root: Path, name: str, address: str) -> Tree:
    """The tree of environments/<name>.yaml as it is committed; of its text only the repository's address is replaced."""
    apps = f"argocd-apps/{name}"
    (platform,) = load_all((root / apps / "platform.yaml").read_text(), f"{apps}/platform.yaml")
    own = platform.value["spec"]["source"]["repoURL"]
    files = {path: text.replace(own, address) for path, text in _texts(root, apps)}
    sources = {
        entry["spec"]["source"]["path"] for entry in Tree(name, files).named("Application").values()
    } | {f"manifests/{name}"}
    for folder in sources:
        files = dict(_texts(root, folder)) | files
    return Tree(name, files)


def _texts(root: Path, folder: str) -> Iterable[tuple[str, str]]:
    for path in sorted((root / folder).rglob("*")):
        if path.is_file():
            yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")


def is_settled(application: Json, revision: str) -> bool:
    """Whether it is up to date with a commit, and healthy."""
    return _words(application) == "Synced/Healthy" and _revision(application) == revision


def _words(application: Json) -> str:
    status = application.get("status", {})
    sync, health = status.get("sync", {}), status.get("health", {})
    return f"{sync.get('status') or 'Unknown'}/{health.get('status') or 'Missing'}"


def _revision(application: Json) -> str:
    return str(application.get("status", {}).get("sync", {}).get("revision", ""))


def why_not(application: Json) -> str:
    """One line on why an Application is not healthy."""
    status = application.get("status", {})
    words = [c["message"] for c in status.get("conditions", ())]
    words += [
        f"{r['kind']}/{r['name']}: {r['health'].get('message') or r['health']['status']}"
        for r in status.get("resources", ())
        if r.get("health", {}).get("status", "Healthy") not in ("Healthy", "Suspended")
    ]
    if (operation := status.get("operationState", {})).get("phase") not in (None, "Succeeded"):
        words.append(operation.get("message", ""))
    return f"{application['metadata']['name']} is {_words(application)}: {'; '.join(words) or 'no message'}"


@dataclass
class Rollout:
    """Remembers each Application's last line, and when it first appeared and first was healthy."""

    revision: str
    there: dict[str, float] = field(default_factory=dict)
    well: dict[str, float] = field(default_factory=dict)
    _said: dict[str, str] = field(default_factory=dict)

    def news(self, applications: Iterable[Json], seconds: float) -> list[str]:
        """A line for each Application that changed, in the order of their waves."""
        lines = []
        for application in sorted(applications, key=_place):
            name, words = application["metadata"]["name"], _words(application)
            self.there.setdefault(name, seconds)
            if is_settled(application, self.revision):
                self.well.setdefault(name, seconds)
            if self._said.get(name) != words:
                self._said[name] = words
                lines.append(f"{_wave(application):<7} {name:<26} {words}")
        return lines

    def table(self, applications: Iterable[Json]) -> list[str]:
        """A table of wave, Application, and the seconds after the start at which it appeared and was healthy."""
        lines = [f"  {'wave':<7} {'Application':<26} {'applied':>8} {'ready':>8}"]
        for application in sorted(applications, key=_place):
            name = application["metadata"]["name"]
            times = [f"{at[name]:.0f} s" if name in at else "-" for at in (self.there, self.well)]
            lines.append(f"  {_wave(application):<7} {name:<26} {times[0]:>8} {times[1]:>8}")
        return lines


def _place(application: Json) -> tuple[int, str]:
    wave = application["metadata"].get("annotations", {}).get(WAVE, "-1")
    return int(wave), str(application["metadata"]["name"])


def _wave(application: Json) -> str:
    wave = _place(application)[0]
    return f"wave {wave}" if wave >= 0 else "root"


def images_of(tree: Tree) -> dict[str, str]:
    """`operator` and `trainer` -> the names of these images in the tree."""
    (values,) = tree.documents(f"manifests/{tree.name}/tuneyard-operator/values.yaml")
    (runtime,) = tree.documents(f"manifests/{tree.name}/fine-tuning/finetuneruntime-")
    image = values["image"]
    return {"operator": f"{image['repository']}:{image['tag']}", "trainer": str(runtime["spec"]["image"])}
