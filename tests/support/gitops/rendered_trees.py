# SPDX-License-Identifier: Apache-2.0
"""Trees of the example environments as they are committed, with addresses of repositories that answer here."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from tuneyard.pipeline import Built, build
from tuneyard.stack.resolve import edges

ROOT = Path(__file__).parents[3]
SHARED = ("manifests/crds", "charts/tuneyard-operator")
"""The files that rendered Applications read from this repository itself."""
Json = dict[str, Any]
Change = Callable[[Json], object]


@dataclass(frozen=True)
class Tree:
    """Everything of one environment."""

    built: Built
    files: dict[str, str]
    """Path -> text, as committed."""
    needs: dict[str, set[str]] = field(repr=False, default_factory=dict)
    """Application -> every Application that must be ready before it."""

    @property
    def name(self) -> str:
        return self.built.name

    @property
    def branch(self) -> str:
        return self.built.stack.environment.argocd.revision

    def application(self, component: str) -> str:
        return f"{self.name}-{component}"

    def documents(self, folder: str) -> list[Json]:
        """The objects below argocd-apps/<env>/<folder>."""
        prefix = f"argocd-apps/{self.name}/{folder}"
        texts = (text for path, text in sorted(self.files.items()) if path.startswith(prefix))
        return [document for text in texts for document in yaml.safe_load_all(text)]

    def applications(self) -> list[Json]:
        """Every Application but the roots."""
        found = [*self.documents("platform/"), *self.documents("models/")]
        return [entry for entry in found if entry["metadata"]["name"] != f"{self.name}-models"]

    def charts(self) -> set[tuple[str, str]]:
        """(name, version) of each chart from a chart repository."""
        sources = [entry["spec"]["source"] for entry in self.applications()]
        return {(source["chart"], source["targetRevision"]) for source in sources if "chart" in source}

    def without_waves(self) -> "Tree":
        """The tree as if no order were computed: every Application in wave 0, which is where those without a wave are."""
        wave = re.compile(r'(?m)^(    argocd\.argoproj\.io/sync-wave: )"\d+"$')
        ours = f"argocd-apps/{self.name}/"
        return replace(
            self, files={p: wave.sub(r'\1"0"', t) if p.startswith(ours) else t for p, t in self.files.items()}
        )


def render_tree(name: str, folder: Path, git: str, charts: str, change: Change | None = None) -> Tree:
    """The tree of environments/<name>.yaml, after `change` of what is in that file."""
    text = (ROOT / f"environments/{name}.yaml").read_text()
    path = folder / f"{name}.yaml"
    if change is not None:
        value = yaml.safe_load(text)
        change(value)
        text = yaml.safe_dump(value, sort_keys=False)
    path.write_text(text)
    built = build(path, ROOT)
    files = {file.path: file.text for file in built.files}
    if change is None:
        committed = {path: (ROOT / path).read_text() for path in files}
        assert files == committed, f"{name} is stale; try: make generate"
    own = built.stack.environment.argocd.repo_url
    for path_, text_ in files.items():
        if path_.startswith("argocd-apps/"):
            files[path_] = with_addresses(text_, own, git, charts)
    for shared in SHARED:
        for file in (ROOT / shared).rglob("*"):
            if file.is_file():
                files[file.relative_to(ROOT).as_posix()] = file.read_text()
    return Tree(built, files, _needs(built))


def with_addresses(text: str, own: str, git: str, charts: str) -> str:
    """The text with every repository's address replaced, and nothing else.

    What was a registry becomes a plain chart repository, which Argo CD tells apart by one key of the Secret.
    """

    def replaced(match: re.Match[str]) -> str:
        return match[1] + (git if match[2] == own else charts)

    text = re.sub(r"(?m)^(\s*(?:repoURL|url): )(\S+)$", replaced, text)
    text = re.sub(r"(?m)^(  enableOCI: .*\n)", "", text)
    if "\nkind: AppProject\n" in text:
        block = re.compile(r"(?m)^  sourceRepos:\n(?:  - .*\n)+")
        text = block.sub(f"  sourceRepos:\n  - {charts}\n  - {git}\n", text)
    return text


def _needs(built: Built) -> dict[str, set[str]]:
    direct: dict[str, set[str]] = {}
    for edge in edges(built.stack):
        direct.setdefault(edge.component, set()).add(edge.provider)
    rendered = {c.name for c in built.stack.components if c.is_rendered()}

    def below(name: str) -> set[str]:
        return {deep for near in direct.get(name, ()) for deep in (near, *below(near))}

    return {
        f"{built.name}-{name}": {f"{built.name}-{provider}" for provider in below(name) & rendered}
        for name in rendered
    }


def cascading(environment: Json) -> None:
    """Deletion of an Application takes its objects with it."""
    environment["argocd"]["teardown"] = "cascade"


def without_components(*names: str) -> Change:
    """Components that leave; what only they need leaves with them."""

    def change(environment: Json) -> None:
        for name in names:
            environment.setdefault("components", {})[name] = {"enabled": False}

    return change


def together(*changes: Change) -> Change:
    """Several changes of one environment."""

    def change(environment: Json) -> None:
        for each in changes:
            each(environment)

    return change


def change_values(*components: str, to: str) -> Change:
    """A change of one value in the charts, or of the objects, of components."""

    def change(environment: Json) -> None:
        for name in components:
            options = environment.setdefault("components", {}).setdefault(name, {})
            options.setdefault("values", {})["testedChange"] = to

    return change
