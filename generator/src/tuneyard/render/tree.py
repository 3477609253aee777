# SPDX-License-Identifier: Apache-2.0
"""The whole tree of an environment: `render(stack) -> files`. The same stack gives the same bytes."""

from collections.abc import Mapping
from typing import Any

from tuneyard.catalog.objects import merged
from tuneyard.environment.model import Environment
from tuneyard.render.applications import ROOTS, build_application, build_root, inline_chart_path
from tuneyard.render.argocd import (
    build_parameters_patch,
    build_project,
    build_repositories,
    build_settings_patch,
)
from tuneyard.render.files import HEADER, File, index_of, yaml_file
from tuneyard.render.images import images_page
from tuneyard.render.jobs import build_jobs
from tuneyard.render.secrets import secrets_page
from tuneyard.stack.model import Component, Stack
from tuneyard.stack.order import waves

Json = dict[str, Any]
INLINE_TEMPLATE = """\
{{- /* %s */}}
{{- range .Values.objects }}
---
{{ toYaml . }}
{{- end }}
"""


def render(stack: Stack, digests: Mapping[str, str]) -> tuple[File, ...]:
    """Every file of the environment, sorted by path, the index last.

    Args:
        stack: the resolved environment.
        digests: content digest of each chart or folder of this repository that a component uses (`local_paths`).
    """
    environment, depth = stack.environment, waves(stack)
    files: list[File] = []
    for component in stack.components:
        if component.is_rendered():
            files += _component_files(stack, component, depth[component.name], digests)
    files += _root_files(environment, depth, has_models=any(c.root == "models" for c in stack.components))
    files += _bootstrap_files(stack)
    files.append(File(f"manifests/{environment.name}/secrets.md", secrets_page(stack)))
    files.append(File(f"manifests/{environment.name}/images.md", images_page(stack, files)))
    files.sort(key=lambda file: file.path)
    return (*files, index_of(files, environment.name))


def local_paths(stack: Stack) -> tuple[str, ...]:
    """Charts and folders of this repository whose content decides what is deployed."""
    return tuple(sorted({pin.path for c in stack.components if (pin := stack.pin(c.name)).path}))


def derived_values(stack: Stack, component: Component) -> Json:
    """The chart's values: the derived ones, overridden by the environment's, with sorted keys."""
    derived = component.values(stack) if component.values else {}
    values: Json = sorted_keys(merged(derived, dict(stack.options(component.name).values)))
    return values


def sorted_keys(value: Any) -> Any:
    """The value with every mapping's keys sorted."""
    if isinstance(value, dict):
        return {key: sorted_keys(value[key]) for key in sorted(value)}
    return [sorted_keys(item) for item in value] if isinstance(value, list | tuple) else value


def _component_files(stack: Stack, component: Component, wave: int, digests: Mapping[str, str]) -> list[File]:
    name = stack.environment.name
    folder = f"manifests/{name}/{component.name}"
    values = derived_values(stack, component)
    objects = list(component.objects(stack)) if component.objects else []
    application = build_application(stack, component, wave, values=values, objects=objects, digests=digests)
    files = [
        yaml_file(
            f"argocd-apps/{name}/{component.root}/{component.name}.yaml", application, name, component.name
        )
    ]
    if component.values:
        files.append(yaml_file(f"{folder}/values.yaml", values, name, component.name))
    files += [yaml_file(f"{folder}/{object_file(entry)}", entry, name, component.name) for entry in objects]
    return files


def object_file(entry: Json) -> str:
    """`<kind>[-<namespace>]-<name>.yaml`: unique, and sorted by kind."""
    metadata = entry["metadata"]
    parts = [entry["kind"].lower(), metadata.get("namespace", ""), metadata["name"]]
    return "-".join(part for part in parts if part) + ".yaml"


def _root_files(environment: Environment, depth: Mapping[str, int], *, has_models: bool) -> list[File]:
    """The roots. A person applies `platform` once; `models` and jobs are its last wave, which no sync waits for."""
    name, last = environment.name, max(depth.values(), default=0) + 1
    platform, models = ROOTS
    files = [yaml_file(f"argocd-apps/{name}/{platform}.yaml", build_root(environment, platform, None), name)]
    if has_models:
        root = build_root(environment, models, last)
        files.append(yaml_file(f"argocd-apps/{name}/{platform}/{models}.yaml", root, name))
    for namespace in environment.fine_tuning.namespaces:
        if namespace.jobs_folder:
            entries = build_jobs(environment, namespace, last)
            files += [
                yaml_file(f"argocd-apps/{name}/{platform}/{f}.yaml", e, name) for f, e in entries.items()
            ]
    return files


def _bootstrap_files(stack: Stack) -> list[File]:
    name = stack.environment.name
    folder, inline = f"argocd-apps/{name}/bootstrap", inline_chart_path(name)
    chart = {
        "apiVersion": "v2",
        "name": "inline",
        "description": "Prints the objects in its values",
        "version": "1.0.0",
    }
    return [
        yaml_file(f"{folder}/project.yaml", build_project(stack), name),
        *(
            yaml_file(f"{folder}/repository-{i}.yaml", entry, name)
            for i, entry in enumerate(build_repositories(stack))
        ),
        yaml_file(f"{folder}/argocd-cm.patch.yaml", build_settings_patch(stack), name),
        yaml_file(f"{folder}/argocd-cmd-params-cm.patch.yaml", build_parameters_patch(stack), name),
        yaml_file(f"{inline}/Chart.yaml", chart, name),
        File(f"{inline}/templates/objects.yaml", INLINE_TEMPLATE % HEADER.format(name=name)),
    ]
