# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard backup` and `restore`: what has ended stays ended, whenever the restore is interrupted."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.api_double import ApiDouble
from support.samples import job_spec, runtime_spec
from tuneyard.main import verbs

OURS = "/apis/tuneyard.io/v1alpha1"
JOBS = f"{OURS}/namespaces/team/finetunejobs"
ENDED = {"state": "Succeeded", "message": "done", "result": {"modelName": "a"}, "observedGeneration": 3}


@pytest.fixture
def full() -> ApiDouble:
    """A cluster with one job that has succeeded, one that trains, and a runtime."""
    double = ApiDouble()
    applied = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "kept"}
    for name, status in (("a", ENDED), ("b", {"state": "Training"})):
        metadata = {
            "name": name,
            "namespace": "team",
            "uid": "u",
            "resourceVersion": "7",
            "annotations": applied,
        }
        double.put(JOBS, {"metadata": metadata, "spec": job_spec(), "status": status})
    double.put(f"{OURS}/finetuneruntimes", {"metadata": {"name": "hf"}, "spec": runtime_spec()})
    return double


class _Empty(ApiDouble):
    """A cluster without jobs that keeps what is made, as the real one does: a new object has no status."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[tuple[bool, str]] = []
        self.dies_at = 0

    def answer(self, method: str, address: str, body: bytes) -> tuple[int, bytes]:
        if method != "GET":
            self.dies_at -= 1
            if self.dies_at == 0:
                return 500, b'{"message": "the server is gone"}'
        answer = super().answer(method, address, body)
        if method == "POST":
            for made in self.objects.values():
                if made.get("status") == {"phase": "Running"}:
                    made["status"] = {}
        for job in self.objects.values():
            state = (job.get("status") or {}).get("state", "")
            self.history.append((bool(job["spec"].get("suspend")), state))
        return answer


def run(api: ApiDouble, folder: Path, *words: str) -> Result:
    with api.served(folder) as config:
        return CliRunner().invoke(verbs, [*words, "--kubeconfig", str(config)])


@pytest.fixture
def file(full: ApiDouble, tmp_path: Path) -> Path:
    file = tmp_path / "jobs.json"
    done = run(full, tmp_path, "backup", str(file))
    assert done.stdout == f"{file}: 2 jobs, 1 runtimes\n"
    return file


def restored(api: ApiDouble) -> dict[str, Any]:
    return {path.rpartition("/")[2]: body for path, body in api.objects.items() if "finetunejobs" in path}


def test_what_has_ended_keeps_its_end_and_the_rest_begins_anew(file: Path, tmp_path: Path) -> None:
    empty = _Empty()
    done = run(empty, tmp_path, "restore", str(file))
    assert done.exit_code == 0, done.output
    assert done.stdout == "team/a: with its end\nteam/b: begins anew\n"
    jobs = restored(empty)
    assert {key: jobs["a"]["status"][key] for key in ENDED} == ENDED
    assert jobs["a"]["spec"]["suspend"] is False
    assert jobs["a"]["metadata"]["annotations"] == {"mine": "kept"}
    assert jobs["b"]["status"] == {}
    assert f"{OURS}/finetuneruntimes/hf" in empty.objects
    again = run(empty, tmp_path, "restore", str(file))
    assert (
        again.stdout
        == "FineTuneRuntime hf: was there\nFineTuneJob team/a: was there\nFineTuneJob team/b: was there\n"
    )


@pytest.mark.parametrize("dies_at", [1, 2, 3, 4, 5])
def test_a_job_that_has_ended_is_never_seen_ready_to_run(file: Path, tmp_path: Path, dies_at: int) -> None:
    empty = _Empty()
    empty.dies_at = dies_at
    assert run(empty, tmp_path, "restore", str(file)).exit_code == 1
    assert run(empty, tmp_path, "restore", str(file)).exit_code == 0
    assert restored(empty)["a"]["status"]["state"] == "Succeeded"
    assert restored(empty)["a"]["spec"]["suspend"] is False
    # Only b, which had not ended, is ever there without an end and not suspended.
    ready = [
        path for path, job in empty.objects.items() if path[-1] == "a" and not job["spec"].get("suspend")
    ]
    assert all(empty.objects[path]["status"]["state"] == "Succeeded" for path in ready)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text('{"apiVersion": "v1"}')
    done = run(_Empty(), tmp_path, "restore", str(file))
    assert (done.exit_code, "can't be read" in done.stderr) == (1, True)
