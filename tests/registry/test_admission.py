# SPDX-License-Identifier: Apache-2.0
"""A version is admitted before anything of it is written to S3, and beside the very version whose name it takes.

tests/registry/test_claim_writer.py asks the same of a registry on a claim.
"""

from dataclasses import replace

import pytest
from support.registry.s3_stores import BUCKET
from support.registry.writing import adapter
from tuneyard_api.places import S3Prefix
from tuneyard_api.pod_contract import FailureClass
from tuneyard_trainer.pod.failures import StageFailure
from tuneyard_trainer.registry.bucket import BucketRegistry


@pytest.fixture
def registry(store, prefix, tmp_path):
    return BucketRegistry.of(
        S3Prefix(bucket=BUCKET, prefix=prefix, endpoint=store.endpoint),
        store.credentials,
        tmp_path / "staging",
    )


def test_who_is_not_admitted_writes_nothing(registry, tmp_path):
    def refuse(found):
        raise StageFailure(FailureClass.GATE_FAILED, f"not beside {found}")

    version, content = adapter(tmp_path / "files", "a", b"one")
    with pytest.raises(StageFailure, match="not beside None"):
        registry.publish(version, replace(content, admit=refuse), "mine", replace=True)
    listed = registry.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{registry.place.prefix}/")
    assert listed.get("Contents", []) == []


def test_a_version_is_admitted_beside_the_one_whose_name_it_takes(registry, store, prefix, tmp_path):
    """Another job takes the name while the files are stored: it is asked again, beside that one."""
    first, second, third = (
        adapter(tmp_path / weights.decode(), "a", weights, uid)
        for weights, uid in ((b"one", "mine"), (b"two", "other"), (b"three", "mine"))
    )
    others, quicker, asked = (
        replace(registry, staging=tmp_path / "other", client=store.client()),
        [second],
        [],
    )
    others.publish(*first, "mine", replace=True)

    def publish_first(params, **_):
        if params["url_path"].endswith("/a.json") and quicker:
            others.publish(*quicker.pop(), "other", replace=True)

    registry.client.meta.events.register("before-call.s3.PutObject", publish_first)
    version, content = third
    registry.publish(version, replace(content, admit=asked.append), "mine", replace=True)
    assert [(each.digest, each.replaces) for each in asked] == [
        (first[0].digest, None),
        (second[0].digest, first[0].digest),
    ]
    now, _ = registry._pointer("a")
    assert now is not None
    assert (now.digest, now.replaces) == (version.digest, second[0].digest)
