# SPDX-License-Identifier: Apache-2.0
"""The rendered workflow templates, Argo's own reading of them, and an API server that has taken both kinds of CRDs."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.forms.rendered import rendered
from tuneyard_api.yaml_io import load
from tuneyard_local.cluster import Cluster
from tuneyard_local.parts import part_files, program

ROOT = Path(__file__).parents[2]
Json = dict[str, Any]
Ask = Callable[..., Json]


@pytest.fixture(scope="session")
def argo_expressions() -> Ask:
    """Argo's packages that substitute tags and evaluate expressions: `text` and `passes`, or `expression` and `scope`."""

    def ask(**request: Any) -> Json:
        done = subprocess.run(
            [program("argo-expressions")],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=True,
        )
        answer: Json = json.loads(done.stdout)
        return answer

    return ask


@pytest.fixture
def templates() -> dict[str, Json]:
    """The rendered WorkflowTemplates by name."""
    return {o["metadata"]["name"]: o for o in rendered("team") if o["kind"] == "WorkflowTemplate"}


@pytest.fixture
def manifest(argo_expressions: Ask, templates: dict[str, Json]) -> Callable[..., str]:
    """The manifest that an executor would apply, for what is typed into the form `fine-tune`."""
    spec = templates["fine-tune"]["spec"]
    form, train = spec["templates"][:2]
    (step,) = form["steps"][1]
    workflow = {"workflow.name": "fine-tune-x"}

    def make(**typed: str) -> str:
        fields = {f["name"]: f.get("value") for f in spec["arguments"]["parameters"]} | typed
        values = workflow | {f"inputs.parameters.{name}": value for name, value in fields.items()}
        given = {}
        for argument in step["arguments"]["parameters"]:
            answer = argo_expressions(text=argument["value"], passes=[workflow, values])
            given[f"inputs.parameters.{argument['name']}"] = answer["result"]
        # As Argo does: what holds for the workflow, then the template's inputs, then once more when the pod is made.
        answer = argo_expressions(
            text=train["resource"]["manifest"],
            passes=[workflow, workflow | given, workflow | given | {"pod.name": "p"}],
        )
        assert "error" not in answer, answer
        return str(answer["result"])

    return make


@pytest.fixture(scope="module")
def server(control_plane: Cluster, argo_expressions: Ask) -> Iterator[Cluster]:
    """An API server with Argo's CRDs, which go again, and that of FineTuneJob."""
    del argo_expressions
    kinds = ("workflowtemplates", "workflowtaskresults")
    found = [next(part_files("argo-expressions").rglob(f"argoproj.io_{kind}.yaml")) for kind in kinds]
    theirs = [load(path.read_text()).value for path in found]
    ours = load((ROOT / "manifests/crds/finetunejobs.tuneyard.io.yaml").read_text()).value
    control_plane.apply(*theirs, ours)
    yield control_plane
    control_plane.kubectl("delete", "crd", "--wait=false", *(crd["metadata"]["name"] for crd in theirs))
