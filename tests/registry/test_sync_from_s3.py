# SPDX-License-Identifier: Apache-2.0
"""A registry in S3: what adapter-sync reads of it, and what it says when the store, its keys or an object are not as they should be.

Unit tests ask moto, which stands in for a store; the same ask versitygw, a real one, where the parts of the local cluster are built.
"""

from dataclasses import replace
from pathlib import Path

import pytest
from support.registry.adapters import publish
from support.registry.s3_stores import BUCKET
from tuneyard_api.pod_contract import ADAPTER_FILES
from tuneyard_api.registry import Version
from tuneyard_api.yaml_io import load
from tuneyard_sync.bucket import bucket_source
from tuneyard_sync.servers import FolderServer
from tuneyard_sync.settings import Settings

WEIGHTS = ADAPTER_FILES[1]
NIM = Path(__file__).parents[2] / "manifests/airgapped/model-llama-3-1-8b/nimservice-models-llama-3-1-8b.yaml"


def source_of(store, prefix, environ=None):
    settings = Settings(
        s3_bucket=BUCKET,
        s3_prefix=prefix,
        s3_endpoint=store.endpoint,
        target_dir="/unused",
        base_repo="org/tiny",
        base_model="/models/tiny",
        server="vllm",
    )
    return bucket_source(settings, store.credentials if environ is None else environ)


@pytest.fixture
def upload(bench, store, prefix):
    """Publishes into the bucket: files first, the pointer last."""

    def publish_there(name: str, weights: bytes = b"weights", **fields) -> Version:
        version = publish(bench.registry, name, weights, **fields)
        store.upload(bench.registry / version.path, f"{prefix}/{version.path}/")
        store.client().put_object(Bucket=BUCKET, Key=f"{prefix}/{name}.json", Body=version.encode())
        return version

    return publish_there


def test_what_was_published_is_served_and_replaced_and_taken_away(bench, store, prefix, upload):
    upload("a", b"one")
    upload("b", b"other")
    bench.start(source=source_of(store, prefix))
    bench.run()
    assert bench.served() == {"a": b"one", "b": b"other"}
    second = upload("a", b"two")
    bench.run()
    assert bench.vllm.loaded["a"] == (str(bench.target / second.path), b"two")
    store.client().delete_object(Bucket=BUCKET, Key=f"{prefix}/b.json")
    bench.run()
    assert bench.served() == {"a": b"two"}


def test_beside_a_nim_of_the_committed_tree_the_folder_is_filled(bench, store, prefix, upload):
    """The variables are those of the rendered container; only the addresses are those of this test."""
    (sync,) = load(NIM.read_text()).value["spec"]["sidecarContainers"]
    given = {each["name"]: each["value"] for each in sync["env"] if "value" in each}
    here = {"S3_ENDPOINT": store.endpoint, "S3_BUCKET": BUCKET, "S3_PREFIX": prefix}
    settings = Settings.of(given | {f"TUNEYARD_SYNC_{name}": value for name, value in here.items()})
    ours = upload("ours", b"ours", base=settings.base)
    upload("other", b"other")
    bench.start(source=bucket_source(settings, store.credentials), server=FolderServer(), base=settings.base)
    bench.run()
    assert sorted(path.name for path in bench.target.glob("[!.]*")) == ["ours"]
    assert (bench.target / "ours").resolve() == bench.target / ours.path
    assert (bench.target / "ours" / WEIGHTS).read_bytes() == b"ours"


def test_a_pointer_that_has_not_changed_is_not_read_again(bench, store, prefix, upload):
    upload("a")
    source = source_of(store, prefix)
    listed = source.client.list_objects_v2(Bucket=source.bucket)["Contents"]
    if not all(entry.get("ETag") for entry in listed):
        pytest.skip("this store lists no ETag here; the next test says what is done then")
    read = []
    source.client.meta.events.register("before-call.s3.GetObject", lambda **_: read.append(1))
    bench.start(source=source)
    bench.run(3)
    assert len(read) == 1 + len(ADAPTER_FILES)


def test_a_pointer_is_read_again_where_the_store_lists_no_etag(bench, store, prefix, upload):
    """Versitygw 1.8.0 lists no ETag if it stores no metadata."""

    def forget(parsed, **_):
        for entry in parsed.get("Contents", ()):
            entry["ETag"] = ""

    upload("a", b"one")
    source = source_of(store, prefix)
    source.client.meta.events.register("after-call.s3.ListObjectsV2", forget)
    bench.start(source=source)
    bench.run()
    upload("a", b"two")
    bench.run()
    assert bench.served() == {"a": b"two"}


def test_a_prefix_of_nothing_is_the_whole_bucket_and_holds_no_more_than_pointers(bench, store, upload):
    version = publish(bench.registry, "at-the-top")
    store.upload(bench.registry / version.path, f"{version.path}/")
    store.client().put_object(Bucket=BUCKET, Key="at-the-top.json", Body=version.encode())
    source = source_of(store, "")
    assert list(source.pointers()) == ["at-the-top"]


@pytest.mark.parametrize("weights", [b"on", b"two"], ids=["cut", "altered"])
def test_an_object_that_is_not_what_its_digest_says_is_left_out(bench, store, prefix, upload, weights):
    version = upload("a", b"one")
    upload("b", b"other")
    store.client().put_object(Bucket=BUCKET, Key=f"{prefix}/{version.path}/{WEIGHTS}", Body=weights)
    bench.start(source=source_of(store, prefix))
    assert f"(expected {version.digest}): they were cut or altered" in bench.of("a").problem
    assert bench.served() == {"b": b"other"}
    store.client().put_object(Bucket=BUCKET, Key=f"{prefix}/{version.path}/{WEIGHTS}", Body=b"one")
    assert bench.of("a").loaded


def test_an_object_that_is_missing_is_reported_by_its_address(bench, store, prefix, upload):
    version = upload("a")
    store.client().delete_object(Bucket=BUCKET, Key=f"{prefix}/{version.path}/{WEIGHTS}")
    bench.start(source=source_of(store, prefix))
    address = f"s3://{BUCKET}/{prefix}/{version.path}/{WEIGHTS}"
    assert bench.of("a").problem == f"{address}: the store answers 404 NoSuchKey"


def test_a_pointer_that_says_nonsense_keeps_what_was_there(bench, store, prefix, upload):
    upload("a", b"one")
    bench.start(source=source_of(store, prefix))
    bench.run()
    store.client().put_object(Bucket=BUCKET, Key=f"{prefix}/a.json", Body=b"{}")
    assert f"s3://{BUCKET}/{prefix}/a.json: name: Field required" in bench.of("a").problem
    assert bench.served() == {"a": b"one"}


WRONG = {
    # Moto 5 answers 500 to a request without a signature, versitygw 1.8.0 404 to a key that it does not know.
    "none": ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "the store answers "),
    "an unknown key": (
        {"AWS_ACCESS_KEY_ID": "AKIAWRONG", "AWS_SECRET_ACCESS_KEY": "x"},
        "the store answers 40",
    ),
    "a wrong secret": (
        {"AWS_SECRET_ACCESS_KEY": "x"},
        "the store answers 403 SignatureDoesNotMatch; try other credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_",
    ),
}


@pytest.mark.parametrize(("changes", "said"), WRONG.values(), ids=WRONG.keys())
def test_wrong_credentials_are_reported_and_take_nothing_away(  # noqa: PLR0917  fixtures, and columns of the table
    bench, store, prefix, upload, changes, said
):
    upload("a", b"one")
    bench.start(source=source_of(store, prefix))
    bench.run()
    bench.start(source=source_of(store, prefix, store.credentials | changes))
    bench.vllm.restart()
    status = bench.run(2)
    assert f"s3://{BUCKET}/{prefix}/: {said}" in status.registry_problem
    assert store.credentials["AWS_SECRET_ACCESS_KEY"] not in status.registry_problem
    assert bench.served() == {"a": b"one"}
    assert len([line for line in bench.lines if line.startswith("registry: ")]) == 1
    bench.start(source=source_of(store, prefix))
    assert bench.run().registry_problem is None


def test_a_store_that_is_away_takes_nothing_away(bench, store, prefix, upload):
    upload("a", b"one")
    bench.start(source=source_of(store, prefix))
    bench.run()
    bench.start(source=source_of(replace(store, endpoint="http://127.0.0.1:9"), prefix))
    bench.vllm.restart()
    status = bench.run()
    assert "Could not connect to the endpoint URL" in status.registry_problem
    assert bench.served() == {"a": b"one"}
    bench.start(source=source_of(store, prefix))
    upload("b", b"two")
    bench.run()
    assert bench.served() == {"a": b"one", "b": b"two"}


def test_a_store_that_stops_in_the_middle_of_an_object_leaves_no_part_of_it(
    bench, store, prefix, upload, monkeypatch
):
    from botocore.response import StreamingBody

    upload("a", b"one")
    bench.start(source=source_of(store, prefix))
    real = StreamingBody.iter_chunks

    def torn(body, *args):
        chunks = list(real(body, *args))
        yield chunks[0][:1]
        from botocore.exceptions import IncompleteReadError

        raise IncompleteReadError(actual_bytes=1, expected_bytes=3)

    with monkeypatch.context() as patch:
        patch.setattr(StreamingBody, "iter_chunks", torn)
        assert "read, but total bytes expected is 3" in bench.of("a").problem
    assert not any(path.is_file() for path in bench.target.rglob("*"))
    assert bench.of("a").loaded
