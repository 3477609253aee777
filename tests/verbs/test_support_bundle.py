# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard support-bundle`: what helps is in it, and no secret is, wherever people have put one."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.api_double import ApiDouble
from support.samples import job_spec, runtime_spec
from tuneyard.client.bundle import BLANK, blanked
from tuneyard.main import verbs

OURS = "/apis/tuneyard.io/v1alpha1"
PLANTED = {
    "a variable of a pod": "plain-words-1",
    "a variable of a runtime": "plain-words-2",
    "a token in a log": "hf_PlantedPlantedPlanted",
    "a password in an address": "hunter2hunter2",
    "a password in an argument": "swordfish1",
    "what kubectl keeps": "plain-words-3",
    "a key of several lines": "MIIEvplantedplanted",
}


@pytest.fixture
def api() -> ApiDouble:
    double = ApiDouble()
    pod: dict[str, Any] = {
        "metadata": {
            "name": "operator-x", "namespace": "tuneyard-system",
            "labels": {"app.kubernetes.io/name": "tuneyard-operator"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": PLANTED["what kubectl keeps"]},
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {"containers": [{
            "name": "operator", "image": "operator:1",
            "args": [f"--password={PLANTED['a password in an argument']}"],
            "env": [
                {"name": "GREETING", "value": PLANTED["a variable of a pod"]},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "tokens", "key": "k"}}},
            ],
        }]},
        "status": {"containerStatuses": [{"name": "operator", "restartCount": 1}]},
    }  # fmt: skip
    double.put("/api/v1/namespaces/tuneyard-system/pods", pod)
    double.put(
        "/api/v1/namespaces/tuneyard-system/secrets", {"metadata": {"name": "tokens"}, "data": {"k": "eA=="}}
    )
    double.logs["operator-x"] = (
        f"GET http://ada:{PLANTED['a password in an address']}@proxy:3128 with {PLANTED['a token in a log']}\n"
        f"-----BEGIN PRIVATE KEY-----\n{PLANTED['a key of several lines']}\n-----END PRIVATE KEY-----\nall is well\n"
    )
    env = [{"name": "SOME", "value": PLANTED["a variable of a runtime"]}]
    double.put(f"{OURS}/finetuneruntimes", {"metadata": {"name": "hf"}, "spec": runtime_spec(env=env)})
    job = {
        "metadata": {"name": "a", "namespace": "team"},
        "spec": job_spec(),
        "status": {"message": "waits for a GPU"},
    }
    double.put(f"{OURS}/namespaces/team/finetunejobs", job)
    double.put(
        f"{OURS}/namespaces/other/finetunejobs", {**job, "metadata": {"name": "b", "namespace": "other"}}
    )
    double.objects["/version"] = {"metadata": {}, "spec": {}, "gitVersion": "v1.36.3"}
    return double


@pytest.fixture
def bundle(api: ApiDouble, tmp_path: Path) -> Any:
    def run(*words: str) -> tuple[Result, dict[str, str]]:
        file = tmp_path / "b.tar.gz"
        with api.served(tmp_path) as config:
            flags = ["--kubeconfig", str(config), "--to", str(file)]
            result = CliRunner().invoke(verbs, ["support-bundle", *flags, *words])
        assert result.exit_code == 0, result.output
        with tarfile.open(file) as archive:
            members = {entry.name: archive.extractfile(entry).read().decode() for entry in archive}  # type: ignore[union-attr]
        return result, {name.removeprefix("tuneyard-support/"): text for name, text in members.items()}

    return run


def test_no_secret_is_in_it_and_none_is_read(bundle: Any, api: ApiDouble) -> None:
    _, members = bundle("-A")
    everything = "\n".join(members.values())
    assert {what for what, secret in PLANTED.items() if secret in everything} == set()
    assert not [path for _, path in api.asked if "secrets" in path or "configmaps" in path]


def test_what_helps_is_in_it(bundle: Any) -> None:
    _, members = bundle()
    [job] = json.loads(members["finetunejobs.json"])
    assert job["status"]["message"] == "waits for a GPU"
    [pod] = json.loads(members["operator-pods.json"])
    container = pod["spec"]["containers"][0]
    assert container["image"] == "operator:1"
    assert container["env"][0] == {"name": "GREETING", "value": BLANK}
    assert container["env"][1]["valueFrom"]["secretKeyRef"]["name"] == "tokens", (
        "which Secret is meant is no secret"
    )
    assert "all is well" in members["operator-logs/operator-x.log"]
    assert "operator-logs/operator-x.previous.log" in members
    assert json.loads(members["versions.json"])["server"]["gitVersion"] == "v1.36.3"
    _, members = bundle("-A")
    assert len(json.loads(members["finetunejobs.json"])) == 2


def test_what_a_person_may_not_read_is_said_and_holds_nothing_up(bundle: Any, api: ApiDouble) -> None:
    api.forbidden = {"/api/v1/nodes"}
    result, members = bundle()
    assert "could not be read: nodes: " in result.stdout
    assert 'User "ada" cannot list resource at /api/v1/nodes' in result.stdout
    assert members["problems.txt"].startswith("nodes: ")
    assert "nodes.json" not in members
    assert "finetunejobs.json" in members


@pytest.mark.parametrize(
    "text",
    [
        "step 3 of 9, 1250 tokens/s",
        "Secret adapter-registry is missing",
        "s3://bucket/key@v1",
        "token budget: 5",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    assert blanked(text) == text
