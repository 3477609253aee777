# SPDX-License-Identifier: Apache-2.0
"""The worked example of docs/how-to/add-a-component.md is run as it stands there."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import tuneyard.catalog as package
from tuneyard.catalog import catalog, pins
from tuneyard.environment.model import Environment
from tuneyard.render.tree import local_paths, render
from tuneyard.stack.order import waves
from tuneyard.stack.pins import read_pins
from tuneyard.stack.resolve import resolve

PAGE = (Path(__file__).parents[2] / "docs/how-to/add-a-component.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


def test_a_module_in_the_folder_is_all_that_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "external_dns.py").write_text(block("python"))
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    package.static_components.cache_clear()
    try:
        assert "external-dns" in {component.name for component in package.static_components()}
    finally:
        sys.modules.pop("tuneyard.catalog.external_dns", None)
        package.static_components.cache_clear()


def test_the_documented_component_renders_after_what_it_needs() -> None:
    module = ModuleType("external_dns")
    exec(block("python"), module.__dict__)  # noqa: S102  the page is ours
    environment = Environment.model_validate(
        {
            "name": "docs",
            "argocd": {"repoUrl": "https://git.example.com/g.git"},
            "storage": {"readWriteOnce": {"className": "fast"}},
            "components": {"external-dns": {"enabled": True}},
        }
    )
    stack = resolve(
        environment, (*catalog(environment), *module.COMPONENTS), {**pins(), **read_pins(block("yaml"))}
    )
    files = {file.path: file for file in render(stack, dict.fromkeys(local_paths(stack), "0" * 64))}
    application = files["argocd-apps/docs/platform/external-dns.yaml"].objects[0]
    assert application["spec"]["source"]["chart"] == "external-dns"
    assert application["spec"]["source"]["helm"]["valuesObject"]["txtOwnerId"] == "docs"
    assert waves(stack)["external-dns"] == waves(stack)["cert-manager"] + 1
    assert "external-dns | rfc2136-tsig-secret" in files["manifests/docs/secrets.md"].text
