# SPDX-License-Identifier: Apache-2.0
"""`kubectl tuneyard fetch`: the published files arrive whole, and the pod that reads them is gone afterwards.

kubectl is a script that runs here what it would run in the pod; tests/e2e fetches through a real one.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.api_double import ApiDouble
from support.registry.s3_stores import BUCKET, Store, moto_store
from support.samples import job_spec, runtime_spec
from tuneyard.main import verbs
from tuneyard_api.pod_contract import ADAPTER_FILES
from tuneyard_api.registry import StoredBase, Version, published_digest, version_path

JOBS, PODS = "/apis/tuneyard.io/v1alpha1/namespaces/team/finetunejobs", "/api/v1/namespaces/team/pods"
KUBECTL = """#!{python}
import os, sys
words = sys.argv[sys.argv.index("--") + 1 :]
if words[0] == "tuneyard-trainer":
    os.execv(sys.executable, [sys.executable, "-m", "tuneyard_trainer.main", *words[1:]])
words[-1] = words[-1].replace("/registry", os.environ["REGISTRY"])
os.execv(sys.executable, [sys.executable, *words[1:]])
"""


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return tmp_path / "claim"


@pytest.fixture
def digest(registry: Path) -> str:
    """A version in a registry, with what lies beside it."""
    first = registry / "first"
    first.mkdir(parents=True)
    for name in ADAPTER_FILES:
        (first / name).write_bytes(name.encode() * 1000)
    digest = published_digest(first)
    version = Version(name="titles", digest=digest, base=StoredBase(name="tiny"))
    (first / "version.json").write_bytes(version.encode())
    (first / "metrics.jsonl").write_text('{"step": 1}\n')
    (first / ".published-by").mkdir()
    (first / ".published-by/uid").touch()
    folder = registry / version_path("titles", digest)
    folder.parent.mkdir(parents=True)
    first.rename(folder)
    return digest


@pytest.fixture
def api() -> ApiDouble:
    double = ApiDouble()
    double.put(
        "/apis/tuneyard.io/v1alpha1/finetuneruntimes", {"metadata": {"name": "hf"}, "spec": runtime_spec()}
    )
    return double


def published(api: ApiDouble, digest: str, **plan: Any) -> None:
    """Job `a`, which has published `titles`."""
    status = {
        "state": "Succeeded",
        "plan": {
            "digest": "d", "gpus": 1, "microBatchSize": 1, "gradientAccumulation": 1,
            "registryClaim": "adapters", "adapterPath": "/registry/titles", **plan,
        },
        "result": {
            "adapter": {"name": "titles", "digest": digest, "path": "/registry/titles"},
            "modelName": "titles",
            "endpoint": "http://vllm.models:8000",
        },
    }  # fmt: skip
    metadata = {"name": "a", "namespace": "team", "uid": "u", "creationTimestamp": "2026-01-01T12:00:00Z"}
    api.put(JOBS, {"metadata": metadata, "spec": job_spec(runtime={"name": "hf"}), "status": status})


@pytest.fixture
def fetch(
    api: ApiDouble, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Result]]:
    kubectl = tmp_path / "bin/kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(KUBECTL.format(python=sys.executable))
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{kubectl.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("REGISTRY", str(registry))
    with api.served(tmp_path) as config:
        yield lambda *words: CliRunner().invoke(
            verbs, ["fetch", "a", "--to", str(tmp_path / "here"), "--kubeconfig", str(config), *words]
        )


@pytest.fixture
def sent(api: ApiDouble, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The objects that are created."""
    bodies: list[Any] = []
    answer = api.answer

    def listen(method: str, address: str, body: bytes) -> tuple[int, bytes]:
        if method == "POST":
            bodies.append(json.loads(body))
        return answer(method, address, body)

    monkeypatch.setattr(api, "answer", listen)
    return bodies


def made_pods(api: ApiDouble) -> list[str]:
    return [path for method, path in api.asked if method == "POST" and path.startswith(PODS)]


def test_what_was_published_arrives_and_nothing_is_left(
    api: ApiDouble, fetch: Callable[..., Result], digest: str, tmp_path: Path
) -> None:
    published(api, digest)
    done = fetch()
    assert done.exit_code == 0, done.output
    assert published_digest(tmp_path / "here") == digest
    assert (tmp_path / "here/metrics.jsonl").read_text() == '{"step": 1}\n'
    assert not (tmp_path / "here/.published-by").exists()
    assert "curl -s http://vllm.models:8000/v1/chat/completions" in done.stdout
    assert '"model": "titles"' in done.stdout
    assert len(made_pods(api)) == 1
    assert not [path for path in api.objects if path.startswith(PODS)], "the pod is deleted"


def test_something_else_than_what_was_published_is_refused(
    api: ApiDouble, fetch: Callable[..., Result], digest: str, registry: Path
) -> None:
    published(api, digest)
    file = registry / version_path("titles", digest) / ADAPTER_FILES[0]
    file.write_bytes(b"changed")
    done = fetch()
    assert done.exit_code == 1
    assert f"and not {digest}, which was published" in done.stderr
    assert not [path for path in api.objects if path.startswith(PODS)]


def test_a_version_that_is_gone_is_said_by_the_pod(api: ApiDouble, fetch: Callable[..., Result]) -> None:
    published(api, "sha256:" + "0" * 64)
    done = fetch()
    assert done.exit_code == 1
    assert "kubectl exec" in done.stderr
    assert "No such file" in done.stderr
    assert not [path for path in api.objects if path.startswith(PODS)]


def test_a_folder_with_something_in_it_is_left_alone(
    api: ApiDouble, fetch: Callable[..., Result], digest: str, tmp_path: Path
) -> None:
    published(api, digest)
    (tmp_path / "here").mkdir()
    (tmp_path / "here/mine").touch()
    assert "is not empty; try --to with a new folder" in fetch().stderr
    assert made_pods(api) == []


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store whose credentials the script that stands in for kubectl exec has, as the pod has its Secret's."""
    with moto_store() as running:
        for name, value in running.credentials.items():
            monkeypatch.setenv(name, value)
        yield running


def publishes_to(api: ApiDouble, **registry: Any) -> None:
    """The runtime's registry is in S3, and its pods trust authorities of their own."""
    place = {"bucket": BUCKET, "prefix": "team", "secretRef": {"name": "adapter-registry"}, **registry}
    spec = runtime_spec(defaults={"registryS3": place}, caBundle={"configMapName": "authorities"})
    api.put("/apis/tuneyard.io/v1alpha1/finetuneruntimes", {"metadata": {"name": "hf"}, "spec": spec})


@pytest.fixture
def in_s3(api: ApiDouble, registry: Path, digest: str, store: Store) -> str:
    """Job `a` has published to S3; the digest."""
    path = version_path("titles", digest)
    store.upload(registry / path, f"team/{path}/")
    publishes_to(api, endpoint=store.endpoint)
    published(api, digest, registryClaim=None, adapterPath=f"s3://{BUCKET}/team/titles")
    return digest


def test_what_was_published_to_s3_arrives_through_a_pod_that_has_the_credentials(
    api: ApiDouble, fetch: Callable[..., Result], in_s3: str, tmp_path: Path, sent: list[Any]
) -> None:
    done = fetch()
    assert done.exit_code == 0, done.output
    assert published_digest(tmp_path / "here") == in_s3
    assert (tmp_path / "here/metrics.jsonl").is_file()
    assert not (tmp_path / "here/.published-by").exists()
    [container] = sent[0]["spec"]["containers"]
    env = {each["name"]: each for each in container["env"]}
    key = env["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"]
    assert (key["name"], env["AWS_CA_BUNDLE"]["value"]) == ("adapter-registry", "/etc/tuneyard-ca/ca.crt")
    assert not [path for path in api.objects if path.startswith(PODS)], "the pod is deleted"


def test_a_version_that_is_gone_from_s3_is_said(
    api: ApiDouble, fetch: Callable[..., Result], store: Store
) -> None:
    publishes_to(api, endpoint=store.endpoint)
    published(api, "sha256:" + "0" * 64, registryClaim=None, adapterPath=f"s3://{BUCKET}/team/titles")
    done = fetch()
    assert done.exit_code == 1
    assert "there is no such version" in done.stderr


def test_a_registry_that_the_runtime_has_left_is_named(
    api: ApiDouble, fetch: Callable[..., Result], digest: str
) -> None:
    publishes_to(api, prefix="elsewhere")
    published(api, digest, registryClaim=None, adapterPath=f"s3://{BUCKET}/team/titles")
    said = fetch().stderr
    assert f"it is at s3://{BUCKET}/team, and runtime hf publishes to s3://{BUCKET}/elsewhere by now" in said
    assert made_pods(api) == []


def test_the_pod_is_as_restricted_as_those_of_jobs_and_can_only_read(
    api: ApiDouble, fetch: Callable[..., Result], digest: str, sent: list[Any]
) -> None:
    published(api, digest)
    assert fetch("--image", "registry.example/other:1").exit_code == 0
    [pod] = sent
    [container] = pod["spec"]["containers"]
    assert container["image"] == "registry.example/other:1"
    assert container["volumeMounts"] == [{"name": "registry", "mountPath": "/registry", "readOnly": True}]
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "tuneyard.io/job" not in pod["metadata"]["labels"], "the operator takes it for none of the job's"
