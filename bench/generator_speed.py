# SPDX-License-Identifier: Apache-2.0
"""The generator beside `kubectl kustomize` and `helm template`: CPU for the same 20 components, growth, start-up, memory.

Each figure is of a whole process with its start-up: CPU is user and system time of it and of what it starts. Kustomize
gets the objects that we rendered as resources, with a name prefix, a label and a patch; Helm gets, for each component,
the chart that prints its Application. So all three end with the same 20 Applications; ours alone also computes values and
order, and checks them. Python's bytecode is compiled before the first measured run, as it is on any machine from the second
call on, also where PYTHONDONTWRITEBYTECODE is set. Writes bench/results/generator.json.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuneyard_api.yaml_io import dump, load
from tuneyard_local.parts import program

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench/results/generator.json"
COMPONENTS = 20
AIMS = {
    "times_less_cpu_than_kustomize": 5,
    "one_changed_of_1000_s": 2,
    "check_one_s": 0.5,
    "memory_growth": 1.2,
}
ENVIRONMENT: dict[str, Any] = {
    "preset": "open",
    "argocd": {"repoUrl": "https://git.example.com/platform/gitops.git"},
    "gpus": {"nodes": [{"product": "NVIDIA-L40S", "nodes": 2, "gpusPerNode": 2, "memoryGiB": 48}]},
    "storage": {"readWriteOnce": {"className": "block"}, "readWriteMany": {"className": "files"}},
    "models": [
        {"name": f"model-{i}", "huggingFace": {"repo": "Qwen/Qwen2.5-7B-Instruct", "revision": "abc"}}
        for i in range(4)
    ],
    "fineTuning": {"runtimes": [{"name": "hf"}], "namespaces": [{"name": "fine-tuning", "gpus": 1}]},
    "components": {
        name: {"enabled": True}
        for name in (
            "argo-workflows",
            "cert-manager",
            "kube-prometheus-stack",
            "leader-worker-set",
            "opentelemetry-collector",
        )
    },
}


def run(*command: str | Path, cwd: Path | None = None) -> dict[str, float]:
    """CPU seconds, wall seconds and peak memory in MiB of a process that must succeed."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=cwd)
    said = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command}: {said.decode()[-2000:]}")
    return {"cpu_s": usage.ru_utime + usage.ru_stime, "wall_s": wall, "peak_mib": usage.ru_maxrss / 1024}


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {key: round(statistics.median(run[key] for run in runs), 4) for key in runs[0]}


def tuneyard(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from tuneyard.main import main; main()", *arguments]


def repository(folder: Path, count: int) -> Path:
    """A repository with so many environments."""
    for part in ("charts/tuneyard-operator", "manifests/crds"):
        shutil.copytree(ROOT / part, folder / part)
    (folder / "environments").mkdir()
    for index in range(count):
        name = f"e-{index:04}"
        (folder / f"environments/{name}.yaml").write_text(dump({"name": name, **ENVIRONMENT}))
    return folder


def render_times(counts: list[int], repeats: int, folder: Path) -> dict[str, Any]:
    """First renders of 1 to many environments, and what comes after on the largest."""
    found: dict[str, Any] = {}
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    warm = str(repository(folder / "warm", 1))
    run(*tuneyard("render", "--root", warm))
    run(*tuneyard("check", "--root", warm))
    for count in counts:
        runs = []
        for turn in range(repeats if count <= 100 else 1):
            root = repository(folder / f"{count}-{turn}", count)
            runs.append(run(*tuneyard("render", "--root", str(root))))
        found[str(count)] = median(runs)
        print(count, found[str(count)], flush=True)
    nothing = [run(*tuneyard("render", "--root", str(root))) for _ in range(3)]
    changes = []
    for turn in range(3):
        path = root / "environments/e-0000.yaml"
        path.write_text(dump({"name": "e-0000", **ENVIRONMENT, "sizing": ("medium", "large", "small")[turn]}))
        changes.append(run(*tuneyard("render", "--root", str(root))))
    return {
        "first": found,
        "nothing_changed": median(nothing),
        "one_changed": median(changes),
        "of": counts[-1],
    }


def applications(root: Path) -> list[dict[str, Any]]:
    """The Applications of the first environment's components."""
    folder = root / "argocd-apps/e-0000"
    files = [*sorted((folder / "platform").glob("*.yaml")), *sorted((folder / "models").glob("*.yaml"))]
    return [load(file.read_text()).value for file in files if file.name != "models.yaml"]


def kustomize(entries: list[dict[str, Any]], folder: Path) -> list[str | Path]:
    """An overlay of the Applications; returns the command."""
    base = folder / "base"
    base.mkdir(parents=True)
    names = []
    for entry in entries:
        names.append(f"{entry['metadata']['name']}.yaml")
        (base / names[-1]).write_text(dump(entry))
    (base / "kustomization.yaml").write_text(dump({"resources": names}))
    overlay = folder / "overlay"
    overlay.mkdir()
    patch = [{"op": "add", "path": "/spec/revisionHistoryLimit", "value": 3}]
    labels = [{"pairs": {"example.com/environment": "e-0000"}, "includeSelectors": False}]
    patches = [{"target": {"kind": "Application"}, "patch": json.dumps(patch)}]
    about = {"resources": ["../base"], "namePrefix": "x-", "labels": labels, "patches": patches}
    (overlay / "kustomization.yaml").write_text(dump(about))
    kubectl = shutil.which("kubectl") or Path(sys.executable).with_name("kubectl")
    return [kubectl, "kustomize", overlay]


def helm_once(entries: list[dict[str, Any]], chart: Path, folder: Path) -> dict[str, float]:
    """Twenty `helm template`, one for each component."""
    folder.mkdir(exist_ok=True)
    runs = []
    for entry in entries:
        values = folder / f"{entry['metadata']['name']}.yaml"
        values.write_text(dump({"objects": [entry]}))
        runs.append(run(program("helm"), "template", entry["metadata"]["name"], chart, "-f", values))
    return {
        "cpu_s": sum(r["cpu_s"] for r in runs),
        "wall_s": sum(r["wall_s"] for r in runs),
        "peak_mib": max(r["peak_mib"] for r in runs),
    }


def report(counts: list[int], repeats: int, folder: Path) -> dict[str, Any]:
    """Everything, with the aims and whether they are met."""
    rendered = render_times(counts, repeats, folder)
    small = folder / "1-0"
    entries = applications(small)
    if len(entries) != COMPONENTS:
        raise SystemExit(f"{len(entries)} components, not {COMPONENTS}")
    check = median([run(*tuneyard("check", "e-0000", "--root", str(small))) for _ in range(max(repeats, 5))])
    command = kustomize(entries, folder / "kustomize")
    side = {
        "kustomize_one": median([run(*command) for _ in range(max(repeats, 5))]),
        "helm_template_20": median(
            [helm_once(entries, small / "manifests/e-0000/inline", folder / "helm") for _ in range(repeats)]
        ),
    }
    first, last = rendered["first"][str(counts[0])], rendered["first"][str(counts[-1])]
    each = (last["cpu_s"] - first["cpu_s"]) / (counts[-1] - counts[0])
    hundred = rendered["first"].get("100", last)
    figures = {
        "cpu_s_for_each_further_environment": round(each, 5),
        "times_less_cpu_than_kustomize": round(side["kustomize_one"]["cpu_s"] / each, 2),
        "times_less_cpu_than_helm": round(side["helm_template_20"]["cpu_s"] / each, 1),
        "one_changed_of_1000_s": rendered["one_changed"]["wall_s"] if counts[-1] == 1000 else None,
        "check_one_s": check["wall_s"],
        "memory_growth": round(last["peak_mib"] / hundred["peak_mib"], 2) if counts[-1] == 1000 else None,
    }
    met = {
        "times_less_cpu_than_kustomize": figures["times_less_cpu_than_kustomize"]
        >= AIMS["times_less_cpu_than_kustomize"],
        **{
            key: figures[key] is not None and figures[key] <= AIMS[key]
            for key in ("one_changed_of_1000_s", "check_one_s", "memory_growth")
        },
    }
    return {"render": rendered, "check_one": check, **side, "figures": figures, "aims": AIMS, "met": met}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", default="1,10,100,1000", help="Numbers of environments.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.counts.split(",")]
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="tuneyard-bench-") as folder:
        result = report(counts, arguments.repeats, Path(folder))
    versions = {
        "python": platform.python_version(),
        "helm": subprocess.run([program("helm"), "version", "--short"], capture_output=True, text=True, check=True).stdout.strip(),
        "kustomize": "as in kubectl " + subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True, check=False).stdout.replace("\n", ", ").strip(", "),
        "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=ROOT).stdout.strip(),
    }  # fmt: skip
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load_before": round(load_before, 2)}
    head = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine, "versions": versions}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(head | result, indent=1) + "\n")
    print(json.dumps(result["figures"], indent=1))
    print(json.dumps(result["met"], indent=1))


if __name__ == "__main__":
    main()
