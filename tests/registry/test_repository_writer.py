# SPDX-License-Identifier: Apache-2.0
"""Writing a registry in a NeMo Data Store, against the double: what is stored and listed, once, whatever happens on the way."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from nemo_microservices import NeMoMicroservices
from support.nemo.double import NemoDouble, served
from support.nemo.wire import Fault
from support.registry.adapters import DESCRIPTION
from support.registry.writing import adapter
from tuneyard_api.data_stores import ENV_DATA_STORE_TOKEN, ResolvedDataStore
from tuneyard_api.pod_contract import ADAPTER_FILES, FailureClass
from tuneyard_api.registry import VERSION_FILE, Version
from tuneyard_trainer.pod.failures import StageFailure
from tuneyard_trainer.registry.content import Content
from tuneyard_trainer.registry.repository import RepositoryRegistry

# The hub's client sends files in a way that its own HTTP library warns about.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
WEIGHTS = ADAPTER_FILES[1]
WRITES = (
    ("POST", "/datastore/namespaces"),
    ("POST", "/repos/create"),
    ("GET", "/api/models/team/a$"),
    ("POST", "/preupload/"),
    ("POST", "/objects/batch"),
    ("PUT", "/hf/lfs/"),
    ("POST", "/commit/"),
    ("GET", "/tree/"),
    ("GET", "/v1/namespaces/team"),
    ("POST", "/v1/namespaces"),
    ("GET", "/v1/models/"),
    ("POST", "/v1/models"),
)


@dataclass
class Writer:
    """The publish pods of several jobs, with one registry."""

    double: NemoDouble
    address: str
    folder: Path

    def registry(self, token: str | None = None) -> RepositoryRegistry:
        place = ResolvedDataStore(
            endpoint=self.address, entity_store=self.address, base_model="meta/llama-3.2-1b-instruct"
        )
        environ = {ENV_DATA_STORE_TOKEN: token} if token else {}
        return RepositoryRegistry.of(place, "team", environ, self.folder / "workspace")

    def content(self, name: str, weights: bytes, uid: str) -> tuple[Version, Content]:
        return adapter(self.folder / f"files-{uid}", name, weights, uid)

    def publish(
        self, name: str, weights: bytes = b"weights", uid: str = "mine", *, replace: bool = False
    ) -> tuple[Version, str]:
        version, content = self.content(name, weights, uid)
        return version, self.registry().publish(version, content, uid, replace=replace)

    @property
    def commits(self) -> list[str]:
        return self.double.store.repositories["model", "team/a"].commits

    @property
    def tree(self) -> dict[str, bytes]:
        return self.double.store.repositories["model", "team/a"].trees["main"]

    @property
    def entities(self) -> list[str]:
        return [f"{namespace}/{name}" for namespace, name in self.double.entities.kinds["models"].held]


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Writer]:
    monkeypatch.setattr("tuneyard_trainer.fetch.patience._PAUSES_SECONDS", (0.0,))
    # The hub's client waits between its own tries.
    monkeypatch.setattr(
        "huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _: None, time=time.time)
    )
    double = NemoDouble()
    with served(double) as address:
        yield Writer(double, address, tmp_path)


def refusal(writer: Writer, *args: object, **more: object) -> StageFailure:
    with pytest.raises(StageFailure) as caught:
        writer.publish(*args, **more)  # type: ignore[arg-type]
    return caught.value


def test_a_version_is_one_commit_and_the_entity_store_lists_it(writer: Writer) -> None:
    version, place = writer.publish("a")
    assert writer.commits == [version.digest]
    assert set(writer.tree) == {*ADAPTER_FILES, VERSION_FILE, *DESCRIPTION, "readme.md"} - {"README.md"}
    assert Version.model_validate_json(writer.tree[VERSION_FILE]).digest == version.digest
    assert writer.tree[WEIGHTS] in writer.double.store.large.values()
    client = NeMoMicroservices(base_url=writer.address, max_retries=0, _strict_response_validation=True)
    name = f"a@{version.digest.removeprefix('sha256:')[:12]}"
    assert writer.registry().listed_as(version) == f"team/{name}"
    model = client.models.retrieve(name, namespace="team")
    assert model.base_model == "meta/llama-3.2-1b-instruct"
    assert model.artifact is not None
    assert (model.artifact.files_url, model.artifact.status) == (place, "upload_completed")
    assert model.peft is not None
    assert model.peft.finetuning_type == "lora"
    assert place == f"hf://team/a@{writer.double.store.repositories['model', 'team/a'].sha('main')}"


def test_the_same_again_is_done_already(writer: Writer) -> None:
    _, place = writer.publish("a")
    assert writer.publish("a", uid="other")[1] == place
    assert len(writer.commits) == len(writer.entities) == 1


def test_another_version_takes_a_name_only_where_it_may_and_both_stay_listed(writer: Writer) -> None:
    first, first_place = writer.publish("a", b"one")
    failure = refusal(writer, "a", b"two", "other")
    assert failure.failure_class is FailureClass.ADAPTER_CONFLICT
    assert "taken by another adapter of FineTuneJob team/job-mine (got sha256:" in str(failure)
    assert len(writer.commits) == len(writer.entities) == 1
    second, second_place = writer.publish("a", b"two", "other", replace=True)
    assert Version.model_validate_json(writer.tree[VERSION_FILE]).replaces == first.digest
    assert writer.tree[WEIGHTS] == b"two"
    repository = writer.double.store.repositories["model", "team/a"]
    for place, content in ((first_place, b"one"), (second_place, b"two")):
        tree = repository.tree(place.rpartition("@")[2])
        assert tree is not None
        assert tree[WEIGHTS] == content
    assert writer.entities == [writer.registry().listed_as(each) for each in (first, second)]


def test_files_of_the_former_version_go(writer: Writer) -> None:
    version, content = writer.content("a", b"one", "mine")
    (content.files / "model-00002.safetensors").write_bytes(b"a shard")
    whole = version.model_copy(update={"files": (*version.files, "model-00002.safetensors")})
    writer.registry().publish(whole, content, "mine", replace=False)
    assert "model-00002.safetensors" in writer.tree
    writer.publish("a", b"two", "other", replace=True)
    assert set(ADAPTER_FILES) <= set(writer.tree)
    assert "model-00002.safetensors" not in writer.tree


@pytest.mark.parametrize("answer", ["cut", "lost", 503])
@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_request_that_fails_is_made_again_and_all_is_there_once(
    writer: Writer, method: str, path: str, answer: int
) -> None:
    writer.double.faults.append(Fault(method, path, answer))
    version, _ = writer.publish("a")
    assert writer.double.faults[0].times == 0, "no request was hit"
    assert writer.commits == [version.digest]
    assert writer.entities == [writer.registry().listed_as(version)]


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_pod_that_dies_anywhere_is_followed_by_one_that_goes_on(
    writer: Writer, method: str, path: str
) -> None:
    writer.double.faults.append(Fault(method, path, "lost", times=60))
    with suppress(StageFailure):  # where what was done is found without asking again, nothing is in the way
        writer.publish("a")
    assert writer.double.faults[0].times < 60
    writer.double.faults.clear()
    version, _ = writer.publish("a")
    assert writer.commits == [version.digest]
    assert writer.entities == [writer.registry().listed_as(version)]


def test_of_two_that_publish_at_once_one_commits(writer: Writer) -> None:
    other, content = writer.content("a", b"two", "other")
    version, mine = writer.content("a", b"one", "mine")
    is_first = True

    def admit(found: Version | None) -> None:
        nonlocal is_first
        if is_first:
            is_first = False
            writer.registry().publish(other, content, "other", replace=False)

    slow = Content(mine.files, mine.describe, admit)
    with pytest.raises(StageFailure, match="taken by another adapter of FineTuneJob team/job-other"):
        writer.registry().publish(version, slow, "mine", replace=False)
    assert writer.commits == [other.digest]


def test_a_version_that_was_altered_is_not_listed_again(writer: Writer) -> None:
    writer.publish("a")
    repository = writer.double.store.repositories["model", "team/a"]
    repository.commit("main", {WEIGHTS: b"other weights"}, "by hand")
    failure = refusal(writer, "a")
    assert failure.failure_class is FailureClass.ADAPTER_CONFLICT
    assert f"{WEIGHTS} was cut or altered after it was stored" in str(failure)


@pytest.mark.parametrize("files", [{"model.safetensors": b"w"}, {VERSION_FILE: b"{}"}])
def test_a_repository_of_somebody_else_is_left_alone(writer: Writer, files: dict[str, bytes]) -> None:
    writer.publish("b")
    repository = type(writer.double.store.repositories["model", "team/b"])()
    repository.commit("main", files, "by hand")
    writer.double.store.repositories["model", "team/a"] = repository
    failure = refusal(writer, "a", replace=True)
    assert "holds a model that no job has published" in str(failure)
    assert writer.tree == files


def test_a_wrong_token_is_said_without_it(writer: Writer) -> None:
    writer.double.token = "right-one"
    version, content = writer.content("a", b"one", "mine")
    with pytest.raises(StageFailure) as caught:
        writer.registry("wrong-one").publish(version, content, "mine", replace=False)
    assert caught.value.failure_class is FailureClass.PERMISSION_DENIED
    assert "the Data Store answers 401: try a secretRef" in str(caught.value)
    assert "wrong-one" not in str(caught.value)
    writer.registry("right-one").publish(version, content, "mine", replace=False)
