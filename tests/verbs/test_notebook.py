# SPDX-License-Identifier: Apache-2.0
"""examples/follow-a-job.ipynb, cell by cell, while a job trains and ends; IPython's display is all that stands in."""

import json
import sys
import types
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from support.api_double import ApiDouble
from support.samples import TRAIN_FACTS, job_spec, result_text
from support.world.world import World
from tuneyard.client import Client
from tuneyard_api import names
from tuneyard_api.ledger import PhaseTimes
from tuneyard_api.pod_contract import Progress, Stage

NOTEBOOK = Path(__file__).parents[2] / "examples/follow-a-job.ipynb"
JOB = "/apis/tuneyard.io/v1alpha1/namespaces/team/finetunejobs/answers"


def life(world: World) -> list[Callable[[], object]]:
    """What happens to the job between two looks: three steps, then its end."""

    def step(number: int, loss: float) -> None:
        world.progress.answer = Progress(
            stage=Stage.TRAIN, phase="training", step=number, of=300, loss=loss,
            times=PhaseTimes(seconds={"training": float(number)}),
        )  # fmt: skip
        world.advance(100)
        world.one_pass()

    def end() -> None:
        times = {"seconds": {"training": 300.0}}
        world.end_pod(
            "a-train-1-x", message=result_text(Stage.TRAIN, world.digest, facts=TRAIN_FACTS, times=times)
        )
        world.settle()
        world.carry_out(Stage.PUBLISH)

    return [lambda: step(100, 3.0), lambda: step(200, 2.0), lambda: step(300, 1.0), end]


def show(api: ApiDouble, world: World) -> None:
    body = world.cluster.objects[names.JOB_KIND, "team", "a"]
    api.objects[JOB] = {**body, "metadata": {**body["metadata"], "name": "answers"}}


@pytest.fixture
def api() -> ApiDouble:
    """Job `answers` lives on by one event with each look at it."""
    world, double = World(spec=job_spec()), ApiDouble()
    world.settle()
    world.carry_out(Stage.PREPARE)
    world.run_pod(world.make_pod("a-train-1"))
    world.settle()
    show(double, world)
    events, answer = life(world), double.answer

    def look(method: str, address: str, body: bytes) -> tuple[int, bytes]:
        found = answer(method, address, body)
        if address == JOB and events:
            events.pop(0)()
            show(double, world)
        return found

    double.answer = look  # type: ignore[method-assign]
    return double


def test_follow_ends_with_the_job(api: ApiDouble, tmp_path: Path) -> None:
    with api.served(tmp_path) as config:
        states = [str(job.status.state) for job in Client(kubeconfig=config).follow("answers", every=0.01)]
    assert states == ["Training", "Training", "Training", "Training", "Succeeded"]


def test_the_notebook_runs(api: ApiDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cleared: list[bool] = []
    display = types.ModuleType("IPython.display")
    display.clear_output = lambda *, wait: cleared.append(wait)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr("tuneyard.client.client.time.sleep", lambda _: None)
    cells = [
        "".join(cell["source"])
        for cell in json.loads(NOTEBOOK.read_text())["cells"]
        if cell["cell_type"] == "code"
    ]
    said, names_there = StringIO(), {"__name__": "notebook"}
    with api.served(tmp_path) as config, redirect_stdout(said):
        monkeypatch.setenv("KUBECONFIG", str(config))
        for cell in cells:
            exec(compile(cell, str(NOTEBOOK), "exec"), names_there)  # noqa: S102  the notebook is ours
    text = said.getvalue()
    assert "answers              Training" in text
    assert "█▅▁" in text, text
    assert "it has succeeded" in text
    assert "training                300 s" in text
    assert len(cleared) == 5
