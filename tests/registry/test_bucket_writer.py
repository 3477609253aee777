# SPDX-License-Identifier: Apache-2.0
"""Writing a registry in S3: what is stored, what readers see, and the sentences about a store that refuses.

Unit tests ask moto, which stands in for a store; the same ask versitygw, a real one, where the parts of the local cluster are built.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.registry.adapters import DESCRIPTION
from support.registry.s3_stores import BUCKET
from support.registry.writing import adapter
from tuneyard_api.places import RegistryRetention, S3Prefix
from tuneyard_api.pod_contract import ADAPTER_FILES, FailureClass
from tuneyard_api.registry import VERSION_FILE, Version
from tuneyard_sync.bucket import BucketSource
from tuneyard_trainer.pod.failures import StageFailure
from tuneyard_trainer.registry import bucket, retention
from tuneyard_trainer.registry.bucket import BucketRegistry

WEIGHTS = ADAPTER_FILES[1]
NONE_KEPT = RegistryRetention(keep_versions=0, keep_days=0)
AN_HOUR_LATER = 3700.0
killed_at_each_request = pytest.mark.parametrize(
    "store",
    [pytest.param("moto", marks=pytest.mark.long), pytest.param("versitygw", marks=pytest.mark.cluster)],
    indirect=True,
)
"""A run for every request that a writer sends: the real store shows all that the stand-in shows."""


@dataclass
class Writer:
    """The publish pods of several jobs, with one registry."""

    store: object
    place: S3Prefix
    folder: Path

    def __post_init__(self) -> None:
        self.client = self.store.client()
        self.usual = self.registry()

    def registry(self, environ=None, **changes) -> BucketRegistry:
        place = self.place.model_copy(update=changes)
        environ = self.store.credentials if environ is None else self.store.credentials | environ
        return BucketRegistry.of(place, environ, self.folder)

    def publish(self, name, weights=b"weights", uid="mine", *, replace=False, registry=None) -> Version:
        version, content = adapter(self.folder / f"files-{uid}", name, weights, uid)
        where = (registry or self.usual).publish(version, content, uid, replace=replace)
        assert where == f"{self.place}/{name}"
        return version

    def listed(self) -> list[str]:
        listed = self.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{self.place.prefix}/")
        return [entry["Key"].removeprefix(f"{self.place.prefix}/") for entry in listed.get("Contents", ())]

    def put(self, key, content) -> None:
        self.client.put_object(Bucket=BUCKET, Key=f"{self.place.prefix}/{key}", Body=content)

    def delete(self, key) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=f"{self.place.prefix}/{key}")

    def clear(self) -> None:
        for key in self.listed():
            self.delete(key)

    def read(self) -> dict[str, tuple[Version, bytes]]:
        """What adapter-sync reads: the version and the weights of each name, without the version that it replaces."""
        source = BucketSource(self.client, BUCKET, f"{self.place.prefix}/")
        found = {}
        for name, version in source.pointers().items():
            folder = self.folder / "read"
            folder.mkdir(exist_ok=True)
            source.fetch(version, folder)
            found[name] = (version.model_copy(update={"replaces": None}), (folder / WEIGHTS).read_bytes())
        return found


@pytest.fixture
def writer(store, prefix, tmp_path) -> Writer:
    writer = Writer(store, S3Prefix(bucket=BUCKET, prefix=prefix, endpoint=store.endpoint), tmp_path)
    writer.clear()
    return writer


def test_a_version_is_stored_by_digest_and_readers_get_it(writer):
    version = writer.publish("a", b"one")
    stored = [*(f"{version.path}/{name}" for name in (*ADAPTER_FILES, *DESCRIPTION, VERSION_FILE))]
    assert sorted(writer.listed()) == sorted([*stored, f"{version.path}/.published-by/mine", "a.json"])
    assert writer.read() == {"a": (version, b"one")}


def test_publishing_again_uploads_no_file_again(writer):
    version = writer.publish("a", b"one")
    registry, uploaded = writer.registry(), []
    registry.client.meta.events.register(
        "before-call.s3.PutObject", lambda params, **_: uploaded.append(params["url_path"])
    )
    writer.publish("a", b"one", registry=registry)
    assert [path.rpartition("/")[2] for path in uploaded] == ["mine"]  # the mark says that it is in use
    assert writer.read() == {"a": (version, b"one")}


def test_a_taken_name_is_refused_and_replaced_only_when_the_job_says_so(writer):
    first = writer.publish("a", b"one")
    with pytest.raises(StageFailure) as refused:
        writer.publish("a", b"two", "other")
    assert refused.value.failure_class is FailureClass.ADAPTER_CONFLICT
    assert (
        f"{writer.place}/a: the name is taken by another adapter of FineTuneJob team/job-mine (got sha256:"
        in str(refused.value)
    )
    assert str(refused.value).endswith(
        f"there is {first.digest}); try another publish.adapterName, or publish.replace: true if the servers are to answer"
        " with this one from now on"
    )
    assert writer.read() == {"a": (first, b"one")}
    second = writer.publish("a", b"two", "other", replace=True)
    assert writer.read() == {"a": (second, b"two")}
    again = writer.publish("a", b"one", "third", replace=True)
    assert again.digest == first.digest
    assert writer.read()["a"][1] == b"one"


def test_a_copy_of_its_version_file_gives_the_name_back_to_an_earlier_version(writer):
    first = writer.publish("a", b"one")
    writer.publish("a", b"two", "other", replace=True)
    source = {"Bucket": BUCKET, "Key": f"{writer.place.prefix}/{first.path}/{VERSION_FILE}"}
    writer.client.copy_object(Bucket=BUCKET, Key=f"{writer.place.prefix}/a.json", CopySource=source)
    assert writer.read() == {"a": (first, b"one")}


@pytest.mark.parametrize("damage", ["altered", "cut", "gone"])
def test_an_object_that_was_altered_after_its_digest_was_taken_is_reported(writer, damage):
    version = writer.publish("a", b"weights")
    key = f"{version.path}/{WEIGHTS}"
    if damage == "gone":
        writer.delete(key)
    else:
        writer.put(key, b"wEights" if damage == "altered" else b"weig")
    writer.delete("a.json")
    with pytest.raises(StageFailure) as refused:
        writer.publish("a", b"weights")
    assert refused.value.failure_class is FailureClass.ADAPTER_CONFLICT
    got = "no whole adapter" if damage == "gone" else "sha256:"
    assert f"{writer.place}/{version.path}: was cut or altered after it was stored (got {got}" in str(
        refused.value
    )
    assert (
        f"expected {version.digest}); try removing the objects below this prefix, and the job again"
        in str(refused.value)
    )
    assert "a.json" not in writer.listed()


@pytest.mark.parametrize("damage", ["altered", "cut"])
def test_an_object_that_is_altered_on_its_way_is_never_named(writer, damage):
    registry = writer.registry()

    def alter(params, **_):
        if WEIGHTS in params["url_path"]:
            writer.put(
                params["url_path"].partition(f"{writer.place.prefix}/")[2],
                b"wEights" if damage == "altered" else b"w",
            )

    registry.client.meta.events.register("before-call.s3.GetObject", alter)
    with pytest.raises(StageFailure, match="was cut or altered on its way") as refused:
        writer.publish("a", b"weights", registry=registry)
    assert refused.value.failure_class is FailureClass.UPSTREAM
    assert "a.json" not in writer.listed()
    version = writer.publish("a", b"weights")
    assert writer.read() == {"a": (version, b"weights")}


def test_a_bucket_that_is_missing_is_reported(writer):
    with pytest.raises(StageFailure) as refused:
        writer.publish("a", registry=writer.registry(bucket="no-such-bucket"))
    assert refused.value.failure_class is FailureClass.DATA_MISSING
    assert str(refused.value) == (
        f"s3://no-such-bucket/{writer.place.prefix}/a.json: the store answers 404 NoSuchBucket: there is no such bucket; try"
        " another bucket, or make this one first"
    )


def test_a_wrong_secret_is_reported_with_the_permission_and_without_the_secret(writer):
    with pytest.raises(StageFailure) as refused:
        writer.publish("a", registry=writer.registry({"AWS_SECRET_ACCESS_KEY": "wrong-secret"}))
    assert refused.value.failure_class is FailureClass.PERMISSION_DENIED
    assert str(refused.value) == (
        f"{writer.place}/a.json: the store answers 403 SignatureDoesNotMatch: try a secretRef whose keys are valid and have"
        " the permission s3:GetObject"
    )
    assert writer.listed() == []


def test_an_unknown_key_is_reported(writer):
    with pytest.raises(StageFailure) as refused:
        writer.publish("a", registry=writer.registry({"AWS_ACCESS_KEY_ID": "AKIAWRONG"}))
    assert refused.value.failure_class is FailureClass.PERMISSION_DENIED
    assert "try a secretRef whose keys are valid" in str(refused.value)


def test_a_store_that_is_away_is_reported(writer):
    with pytest.raises(StageFailure, match="the store can't be reached") as refused:
        writer.publish("a", registry=writer.registry(endpoint="http://127.0.0.1:9"))
    assert refused.value.failure_class is FailureClass.UPSTREAM


def test_a_name_that_is_no_pointer_is_a_conflict(writer):
    writer.put("a.json", b"{}")
    with pytest.raises(
        StageFailure, match=r"a\.json: this object is not a pointer of a registry; try another"
    ) as refused:
        writer.publish("a", replace=True)
    assert refused.value.failure_class is FailureClass.ADAPTER_CONFLICT


@pytest.mark.parametrize("replace", [False, True])
def test_a_job_that_is_quicker_in_the_very_moment_is_not_overwritten_unseen(writer, replace):
    """The pointer is written on the condition that it is still the one that was read."""
    if replace:
        writer.publish("a", b"zero", "first")
    registry, quicker = writer.registry(), []

    def publish_first(params, **_):
        if params["url_path"].endswith("/a.json") and not quicker:
            quicker.append(1)
            writer.publish("a", b"one", "other", replace=True)

    registry.client.meta.events.register("before-call.s3.PutObject", publish_first)
    if replace:
        second = writer.publish("a", b"two", registry=registry, replace=True)
        assert writer.read()["a"] == (second, b"two")
    else:
        with pytest.raises(
            StageFailure, match="the name is taken by another adapter of FineTuneJob team/job-other"
        ):
            writer.publish("a", b"two", registry=registry)
        assert writer.read()["a"][1] == b"one"
    assert quicker


class KilledError(BaseException):
    pass


def kill_before(registry, number):
    """The pod dies before its request of this number; says whether it came that far."""
    left, died = [number], []

    def count(**_):
        if left[0] == 0 or died:
            died.append(1)
            raise KilledError
        left[0] -= 1

    for operation in ("PutObject", "GetObject", "DeleteObject", "ListObjectsV2"):
        registry.client.meta.events.register(f"before-call.s3.{operation}", count)
    return died


@killed_at_each_request
def test_killed_before_any_request_a_reader_sees_one_whole_version_and_the_next_run_ends_it(writer):
    for number in range(60):
        writer.clear()
        first = writer.publish("a", b"one", "other")
        registry = writer.registry()
        died = kill_before(registry, number)
        with suppress(KilledError):
            writer.publish("a", b"two", registry=registry, replace=True)
        version, weights = writer.read()["a"]
        assert (weights == b"one") == (version == first)
        second = writer.publish("a", b"two", replace=True)
        assert writer.read()["a"] == (second, b"two")
        if not died:
            break
    assert number >= 10


UPLOAD = """
import os, sys
from pathlib import Path
from support.registry.writing import adapter
from tuneyard_api.places import S3Prefix
from tuneyard_trainer.registry.bucket import BucketRegistry
place = S3Prefix.model_validate_json(sys.argv[1])
version, content = adapter(Path(sys.argv[2]) / "files", "a", Path(sys.argv[3]).read_bytes(), "mine")
BucketRegistry.of(place, os.environ, Path(sys.argv[2])).publish(version, content, "mine", replace=True)
"""


def test_an_upload_that_is_killed_in_the_middle_shows_nothing_and_the_next_run_ends_it(writer, tmp_path):
    weights = os.urandom(96 << 20)
    (tmp_path / "weights").write_bytes(weights)
    first = writer.publish("a", b"one", "other")
    command = [
        sys.executable,
        "-c",
        UPLOAD,
        writer.place.model_dump_json(),
        str(tmp_path / "pod"),
        str(tmp_path / "weights"),
    ]
    environment = os.environ | writer.store.credentials | {"PYTHONPATH": str(Path(__file__).parents[1])}
    pod = subprocess.Popen(command, env=environment)
    staging = tmp_path / "pod" / "publishing" / "README.md"
    until = time.monotonic() + 180
    while not staging.exists():  # the upload has begun
        assert time.monotonic() < until
        assert pod.poll() is None
        time.sleep(0.005)
    time.sleep(0.1)
    pod.send_signal(signal.SIGKILL)
    assert pod.wait(120) == -signal.SIGKILL
    assert writer.read() == {"a": (first, b"one")}
    version, _ = adapter(tmp_path / "files", "a", weights)
    assert f"{version.path}/{VERSION_FILE}" not in writer.listed()
    subprocess.run(command, env=environment, check=True, timeout=300)
    assert writer.read() == {"a": (version, weights)}


def test_earlier_versions_are_retired_and_what_is_in_use_never_is(writer, monkeypatch):
    first = writer.publish("a", b"one")
    second = writer.publish("a", b"two", "other", replace=True)
    other = writer.publish("ab", b"one")
    assert writer.usual.retire("a", NONE_KEPT, time.time()) == []  # published within the hour
    one_kept = RegistryRetention(keep_versions=1, keep_days=0)
    assert writer.usual.retire("a", one_kept, time.time() + AN_HOUR_LATER) == []
    a_week = RegistryRetention(keep_versions=0, keep_days=7)
    assert writer.usual.retire("a", a_week, time.time() + AN_HOUR_LATER) == []
    gone = writer.usual.retire("a", NONE_KEPT, time.time() + AN_HOUR_LATER)
    assert gone == [first.digest.removeprefix("sha256:")]
    assert not any(key.startswith(first.path) for key in writer.listed())
    assert writer.read() == {"a": (second, b"two"), "ab": (other, b"one")}


@pytest.mark.parametrize("comes", ["a rollback", "a publisher"])
def test_a_version_that_a_job_comes_back_to_while_it_is_retired_stays(writer, comes):
    first = writer.publish("a", b"one")
    writer.publish("a", b"two", "other", replace=True)
    registry = writer.registry()

    def come_back(**_):
        if comes == "a rollback":
            writer.put("a.json", first.encode())
        else:
            writer.put(f"{first.path}/.published-by/late", b"")

    registry.client.meta.events.register("before-call.s3.DeleteObject", come_back)
    # What was written is an hour old but for what comes back: the clock of the store can't be set.
    now = time.time() + (AN_HOUR_LATER if comes == "a rollback" else 2.0)
    if comes == "a publisher":
        patch = pytest.MonkeyPatch()
        patch.setattr(bucket, "GRACE_SECONDS", 1.5)
        patch.setattr(retention, "GRACE_SECONDS", 1.5)
        time.sleep(2.0)
        now = time.time()
    try:
        assert registry.retire("a", NONE_KEPT, now) == []
    finally:
        if comes == "a publisher":
            patch.undo()
    assert f"{first.path}/{VERSION_FILE}" in writer.listed()
    assert f"{first.path}/{WEIGHTS}" in writer.listed()


@killed_at_each_request
def test_retiring_that_is_killed_before_any_request_continues(writer):
    for number in range(40):
        writer.clear()
        first = writer.publish("a", b"one")
        second = writer.publish("a", b"two", "other", replace=True)
        registry, now = writer.registry(), time.time() + AN_HOUR_LATER
        died = kill_before(registry, number)
        with suppress(KilledError):
            registry.retire("a", NONE_KEPT, now)
        assert writer.read() == {"a": (second, b"two")}
        writer.usual.retire("a", NONE_KEPT, now)
        assert not any(key.startswith(first.path) for key in writer.listed())
        if not died:
            break
    assert number >= 5
