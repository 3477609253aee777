# SPDX-License-Identifier: Apache-2.0
"""Another name for a published version: what readers see, what is refused, and that the candidate stays."""

import pytest
from support.registry.writing import adapter
from tuneyard_api.pod_contract import FailureClass
from tuneyard_sync.sources import FolderSource
from tuneyard_trainer.pod.failures import StageFailure
from tuneyard_trainer.registry.claim import ClaimRegistry
from tuneyard_trainer.stages.promote import promote


@pytest.fixture
def root(tmp_path):
    return tmp_path / "registry"


@pytest.fixture
def publish(root, tmp_path):
    def put(name, weights, uid):
        version, content = adapter(tmp_path / "scratch", name, weights, uid)
        ClaimRegistry(root).publish(version, content, uid, replace=False)
        return version

    return put


def digests(root):
    """What adapter-sync reads, by name."""
    return {name: version.digest for name, version in FolderSource(root).pointers().items()}


def test_both_names_stand_for_the_version_with_all_its_files(root, publish):
    version = publish("run-1", b"weights", "uid-1")
    promoted = promote(root, "run-1", "answers", replace=False)
    assert (promoted.name, promoted.digest) == ("answers", version.digest)
    assert digests(root) == {"run-1": version.digest, "answers": version.digest}
    files = [{path.name for path in (root / name).iterdir()} for name in ("run-1", "answers")]
    assert files[1] == files[0] - {".published-by"}


def test_what_was_promoted_stays_when_its_job_is_deleted(root, publish):
    version = publish("run-1", b"weights", "uid-1")
    promote(root, "run-1", "answers", replace=False)
    ClaimRegistry(root).unpublish("run-1", "uid-1")
    assert digests(root) == {"answers": version.digest}


def test_again_is_the_same_and_the_name_itself_is_no_change(root, publish):
    publish("run-1", b"weights", "uid-1")
    for _ in range(2):
        promote(root, "run-1", "answers", replace=False)
    promote(root, "run-1", "run-1", replace=False)
    assert set(digests(root)) == {"run-1", "answers"}


def test_a_name_that_is_taken_is_moved_only_when_asked(root, publish):
    former, version = publish("answers", b"old", "uid-0"), publish("run-1", b"new", "uid-1")
    with pytest.raises(StageFailure, match=r"publish\.replace") as refused:
        promote(root, "run-1", "answers", replace=False)
    assert refused.value.failure_class is FailureClass.ADAPTER_CONFLICT
    assert digests(root)["answers"] == former.digest
    assert promote(root, "run-1", "answers", replace=True).digest == version.digest
    assert digests(root)["answers"] == version.digest


@pytest.mark.parametrize(
    ("candidate", "name", "words"),
    [
        ("run-2", "answers", "nothing is published under this name"),
        ("../run-1", "answers", "is no name of an adapter"),
        (".store", "answers", "is no name of an adapter"),
        ("run-1", "My Adapter", "is no name of an adapter"),
        ("run-1", "a/b", "is no name of an adapter"),
    ],
)
def test_what_is_no_name_is_refused(root, publish, candidate, name, words):
    publish("run-1", b"weights", "uid-1")
    with pytest.raises(StageFailure, match=words) as refused:
        promote(root, candidate, name, replace=True)
    assert refused.value.failure_class is FailureClass.BAD_INPUT
    assert set(digests(root)) == {"run-1"}
