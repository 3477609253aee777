# SPDX-License-Identifier: Apache-2.0
"""The pages on backup and support do what they say, command by command; tests/cluster follows those that need an API server."""

import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from support.api_double import ApiDouble
from support.pages import run_page
from support.registry.adapters import publish
from support.samples import job_spec, runtime_spec
from tuneyard_api.registry import read_version
from tuneyard_local.paths import script

HOW_TO = Path(__file__).parents[2] / "docs/how-to"
OURS = "/apis/tuneyard.io/v1alpha1"
JOBS = f"{OURS}/namespaces/team/finetunejobs"


def put_jobs(api: ApiDouble, names: str = "ab") -> None:
    """Two jobs, of which `a` has ended, and a runtime."""
    states: dict[str, dict[str, Any]] = {"a": {"state": "Succeeded"}, "b": {"state": "Training"}}
    for name in names:
        metadata = {"name": name, "namespace": "team"}
        api.put(JOBS, {"metadata": metadata, "spec": job_spec(), "status": states[name]})
    api.put(f"{OURS}/finetuneruntimes", {"metadata": {"name": "hf"}, "spec": runtime_spec()})


class _Lost(ApiDouble):
    """A cluster that loses its jobs once they were read."""

    def answer(self, method: str, address: str, body: bytes) -> tuple[int, bytes]:
        answer = super().answer(method, address, body)
        if method == "GET" and f"{OURS}/finetunejobs" in address:
            self.objects.clear()
        return answer


@pytest.mark.parametrize(("page", "api"), [("back-up", _Lost()), ("support-bundle", ApiDouble())])
def test_a_reader_of_the_page_gets_what_it_shows(page: str, api: ApiDouble, tmp_path: Path) -> None:
    put_jobs(api)
    path = f"{script('kubectl-tuneyard').parent}:{os.environ['PATH']}"
    with api.served(tmp_path) as config:
        differences = run_page(
            HOW_TO / f"{page}.md", tmp_path, {"KUBECONFIG": str(config), "PATH": path}, 120
        )
    assert differences == []


def test_a_registry_that_was_packed_while_a_name_moved_is_whole_where_it_is_unpacked(tmp_path: Path) -> None:
    """Runs the commands of the page, with the folders of this test for those of a pod."""
    commands = (HOW_TO / "back-up.md").read_text().split("```sh\n")[1:]
    pack, unpack = (block.partition("\n```")[0].replace("/backup", str(tmp_path)) for block in commands)
    registry, fresh = tmp_path / "registry", tmp_path / "fresh"
    for folder in (registry, fresh):
        folder.mkdir()
    first = publish(registry, "titles", b"one")
    second = publish(registry, "titles", b"two")
    (registry / ".titles.new").symlink_to(first.path)
    subprocess.run(["bash", "-ec", pack], cwd=registry, check=True)
    subprocess.run(["bash", "-ec", unpack], cwd=fresh, check=True)
    assert (fresh / "titles").readlink().as_posix() == second.path
    for version in (first, second):
        assert read_version("titles", fresh / version.path).digest == version.digest
    assert not (fresh / ".titles.new").is_symlink()
    with tarfile.open(tmp_path / "registry.tar.gz") as archive:
        assert any(member.issym() for member in archive), "a name is a link, not a second copy"
