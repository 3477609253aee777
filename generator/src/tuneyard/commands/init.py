# SPDX-License-Identifier: Apache-2.0
"""`tuneyard init`: a small environment to start from, by flags or a few questions."""

from pathlib import Path
from typing import Any

import click
from tuneyard_api.yaml_io import dump

from tuneyard.cluster.facts import ClusterFacts, GpuNodesFound, gather
from tuneyard.commands.cluster_options import connect, context_option, kubeconfig_option
from tuneyard.commands.reporting import EXIT_INPUT, one, root_option
from tuneyard.environment.load import parse
from tuneyard.environment.presets import PRESETS

_HEAD = (
    "Every key with its default: environments/sample.yaml. What a key does: tuneyard explain {name} <key>."
)


@click.command()
@click.argument("name", default="my")
@root_option
@click.option("--preset", type=click.Choice(sorted(PRESETS)), help="Stack to start from.")
@click.option("--repo-url", help="Git repository that the tree will be committed to.")
@click.option("--gpu", help="GPU nodes as PRODUCT:GPUS_PER_NODE:MEMORY_GIB[:NODES], or `none`.")
@click.option("--storage-class", help="StorageClass for volumes that one node mounts.")
@click.option("--shared-storage-class", help="StorageClass for volumes that several nodes mount.")
@click.option("--kubernetes", help="Minor version of Kubernetes, such as 1.33.")
@click.option(
    "--from-cluster", is_flag=True, help="Read versions, GPUs and storage classes from the live cluster."
)
@kubeconfig_option
@context_option
@click.option("--ask", is_flag=True, help="Ask for every value that no flag sets.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def command(  # noqa: PLR0917  click passes them by name
    name: str, root: Path, preset: str | None, repo_url: str | None, gpu: str | None, storage_class: str | None,
    shared_storage_class: str | None, kubernetes: str | None, from_cluster: bool, kubeconfig: Path | None,
    context: str | None, ask: bool, force: bool,
) -> None:  # fmt: skip
    """Write the small environment file environments/NAME.yaml.

    This needs no cluster, and asks nothing without --ask.

    \b
    Examples:
      tuneyard init
      tuneyard init lab --preset nemo-microservices --gpu NVIDIA-A100-SXM4-80GB:4:80
      tuneyard init lab --from-cluster --kubeconfig lab.kubeconfig
    """
    facts = one(lambda: gather(connect(kubeconfig, context))) if from_cluster else None
    if facts:
        kubernetes = kubernetes or facts.kubernetes
        storage_class = (
            storage_class or facts.default_storage_class or next(iter(facts.storage_classes), None)
        )
        gpu = gpu or ("none" if not facts.gpus else None)

    def value(given: str | None, question: str, default: str) -> str:
        return given or (click.prompt(question, default=default) if ask else default)

    environment: dict[str, Any] = {
        "name": name,
        "preset": value(preset, "Preset (nemo-microservices, nemo-helix, open)", "open"),
        "cluster": {"kubernetes": value(kubernetes, "Kubernetes", "1.33")},
        "argocd": {
            "repoUrl": value(
                repo_url, "Repository of this tree", "https://git.example.com/platform/gitops.git"
            )
        },
    }
    nodes = value(gpu, "GPU nodes (PRODUCT:GPUS:MEMORY_GIB[:NODES] or none)", "NVIDIA-L40S:1:48")
    if nodes != "none":
        environment["gpus"] = {"nodes": [_gpu_nodes(nodes)]}
    if facts:
        environment |= _found(facts, gpu_is_typed=gpu is not None)
        environment["argocd"] |= {"version": facts.argocd} if facts.argocd else {}
        nodes = "some" if facts.gpus else nodes
    environment["storage"] = {
        "readWriteOnce": {"className": value(storage_class, "Storage class", "standard")}
    }
    if shared_storage_class:
        environment["storage"]["readWriteMany"] = {"className": shared_storage_class}
    if environment["preset"] != "nemo-helix":
        runtime = {"name": "hf"} if nodes != "none" else {"name": "hf-cpu", "accelerator": "none"}
        namespaces = [{"name": "fine-tuning", "gpus": int(nodes != "none")}]
        environment["fineTuning"] = {"runtimes": [runtime], "namespaces": namespaces}
    text = dump(environment, _HEAD.format(name=name))
    path = root / "environments" / f"{name}.yaml"
    one(lambda: parse(text.encode(), str(path)))
    if path.exists() and not force:
        click.echo(f"{path} is there already; try another name, or --force", err=True)
        raise SystemExit(EXIT_INPUT)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    click.echo(f"{path} written; next: tuneyard check {name}, tuneyard render {name}")


def _found(facts: ClusterFacts, *, gpu_is_typed: bool) -> dict[str, Any]:
    """The cluster's GPUs, and its installed components, which are not installed again."""
    found: dict[str, Any] = {}
    if facts.gpus and not gpu_is_typed:
        found["gpus"] = found_gpus(facts.gpus)
    use = {"gpu": "existing-gpus"} if facts.gpus else {}
    if "kube-prometheus-stack" in facts.installed:
        use["metrics"] = "existing-prometheus"
    return found | ({"use": use} if use else {})


def found_gpus(gpus: tuple[GpuNodesFound, ...]) -> dict[str, Any]:
    """The GPUs by their labels: time-sliced, cut into MIG parts, or whole."""
    profile = next((g.sharing.removeprefix("-MIG-") for g in gpus if g.sharing.startswith("-MIG-")), None)
    replicas = next((g.replicas for g in gpus if g.sharing == "-SHARED" and g.replicas > 1), None)
    found: dict[str, Any] = {"nodes": []}
    for g in gpus:
        parts = parts_of(profile, g.gpus_per_node) if profile and g.sharing else 1
        found["nodes"].append(
            {
                "product": g.product,
                "nodes": g.nodes,
                "gpusPerNode": max(g.gpus_per_node // parts, 1),
                "memoryGiB": max(g.memory_gib * parts, 4),
            }
        )
        if parts > 1 or (profile and g.sharing):
            sizes = {"partsPerGpu": parts, "memoryGiB": max(g.memory_gib, 4)}
            found["mig"] = {"strategy": "single", "config": f"all-{profile}", **sizes}
    if replicas and not profile:
        found["timeSlicing"] = {"replicas": replicas}
    return found


def parts_of(profile: str, count: int) -> int:
    """The number of parts of one GPU with a MIG profile, such as 7 for `1g.10gb`; `count` is that of a whole node."""
    slices = int(profile.partition("g")[0])
    return 4 if slices == 1 and count % 7 else 7 // slices


def _gpu_nodes(text: str) -> dict[str, Any]:
    parts = text.split(":")
    if len(parts) not in (3, 4) or not all(part.isdecimal() for part in parts[1:]):
        raise click.BadParameter(
            "PRODUCT:GPUS_PER_NODE:MEMORY_GIB[:NODES], such as NVIDIA-L40S:4:48:2", param_hint="--gpu"
        )
    nodes: dict[str, Any] = {"product": parts[0], "gpusPerNode": int(parts[1]), "memoryGiB": int(parts[2])}
    return {**nodes, "nodes": int(parts[3])} if len(parts) == 4 else nodes  # noqa: PLR2004
