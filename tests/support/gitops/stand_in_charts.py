# SPDX-License-Identifier: Apache-2.0
"""Charts under the names and versions of those that rendered Applications ask for, as there is no network.

Each makes one Probe that changes with the chart's values, the CRDs that the real chart would bring, and what its
operator would need to exist at once (the GPU Operator's ClusterPolicy).
"""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

from support.gitops.kinds import KINDS, PROBE

_PROBE = f"""
apiVersion: {PROBE.group}/{PROBE.version}
kind: Probe
metadata:
  name: {{{{ .Release.Name }}}}
  namespace: {{{{ .Release.Namespace }}}}
spec:
  values: {{{{ .Values | toJson | sha256sum }}}}
"""
_POLICY = """
apiVersion: nvidia.com/v1
kind: ClusterPolicy
metadata: {name: cluster-policy}
spec: {values: "{{ .Values | toJson | sha256sum }}"}
"""


def write_charts(folder: Path, wanted: Iterable[tuple[str, str]]) -> None:
    """Archives and index.yaml for each (name, version)."""
    folder.mkdir(parents=True, exist_ok=True)
    entries: dict[str, list[dict[str, object]]] = {}
    for name, version in sorted(set(wanted)):
        chart = {"apiVersion": "v2", "name": name, "version": version, "description": "stands in"}
        files = {"Chart.yaml": json.dumps(chart), "values.yaml": "{}", "templates/probe.yaml": _PROBE}
        for kind in KINDS:
            if kind.chart == name:
                files[f"crds/{kind.plural}.yaml"] = json.dumps(kind.definition())
        if name == "gpu-operator":
            files["templates/policy.yaml"] = _POLICY
        file = f"{name}-{version}.tgz"
        (folder / file).write_bytes(_archive(name, files))
        entries.setdefault(name, []).append({**chart, "urls": [file]})
    (folder / "index.yaml").write_text(json.dumps({"apiVersion": "v1", "entries": entries}))


def _archive(name: str, files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for path, text in sorted(files.items()):
            member = tarfile.TarInfo(f"{name}/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()
