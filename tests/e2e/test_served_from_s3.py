# SPDX-License-Identifier: Apache-2.0
"""The rendered objects of environments/airgapped.yaml: a job of one namespace, real S3, two real vLLMs of another."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.bench import Bench
from support.registry.s3_stores import BUCKET, versity_store
from support.rendered_trees import (
    RenderedTree,
    Replica,
    Setting,
    ask,
    conditions_of,
    host_of,
    standing,
)
from support.served_jobs import build_short_job, check_answers, stored, succeeded, wait_for_message
from tuneyard_api.registry import hex_of
from tuneyard_local.progress import wait_until
from tuneyard_local.storage import folder_behind
from tuneyard_local.vllm import missing_for_vllm

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(1800)]

JOBS, MODELS = "team-a", "models"


@pytest.fixture(scope="module")
def airgapped_tree(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RenderedTree]:
    if reason := missing_for_vllm():
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("airgapped")
    with versity_store(root / "s3", host_of(bench.cluster)) as store:
        setting = Setting("airgapped", jobs=JOBS, models=MODELS, replicas=2, store=store)
        with standing(bench, root, setting) as tree:
            yield tree


@contextmanager
def kept_out(tree: RenderedTree, replica: Replica, name: str) -> Iterator[None]:
    """The folder beside one replica can't take an adapter of this name: a file is in the way of its versions."""
    path = f"pathlib.Path('/adapters/.store/{name}')"
    run_beside(tree, replica, f"{path}.parent.mkdir(exist_ok=True); {path}.write_text('in the way')")
    yield
    run_beside(tree, replica, f"{path}.unlink()")


def is_kept_out(replica: Replica, name: str) -> bool:
    """Whether the adapter-sync of a replica says that it can't write this one adapter."""
    rows = ask(f"http://{replica.address}:9472/adapters")[1]["adapters"]
    assert [row["name"] for row in rows] in ([], [name])
    assert not any(row.get("loaded") for row in rows)
    return any(row.get("problem", "").startswith("/adapters: ") for row in rows)


def run_beside(tree: RenderedTree, replica: Replica, statements: str) -> None:
    """Run Python in the adapter-sync container of a replica."""
    argv = ("exec", replica.pod, "-c", "adapter-sync", "--", "python3", "-c", f"import pathlib; {statements}")
    done = tree.cluster.kubectl("-n", MODELS, *argv)
    assert done.returncode == 0, done.stderr


def test_a_job_is_served_by_way_of_s3_once_both_replicas_of_another_namespace_answer(
    airgapped_tree: RenderedTree,
) -> None:
    tree, endpoint, name = airgapped_tree, airgapped_tree.setting.endpoint, "from-s3"
    first, second = tree.replicas()
    with kept_out(tree, second, name):
        tree.bench.apply(build_short_job(tree, name))
        problem = (
            f"1 of 2 replicas of {endpoint} does not serve {name}:"
            f" {second.address}:8000 does not have {name} yet"
        )
        status = wait_for_message(tree, name, problem)
        assert conditions_of(status)["Published"]["status"] == "True"
        assert status["state"] == "Serving"
        assert first.roots()[name] == stored(status)
        assert name not in second.roots()
        wait_until("the other's problem", lambda: is_kept_out(second, name), 180)
    status = succeeded(tree, name)
    assert conditions_of(status)["Served"]["message"] == f"2 replicas of {endpoint} answer with {name}"
    assert [each.roots()[name] for each in tree.replicas()] == [stored(status)] * 2
    check_answers(tree, name, name)

    # The adapter went by S3 alone: no claim of the job's namespace holds it.
    digest = hex_of(status["result"]["adapter"]["digest"])
    store = tree.setting.store
    assert store is not None
    listed = store.client().list_objects_v2(Bucket=BUCKET, Prefix="tuneyard/")["Contents"]
    keys = {each["Key"] for each in listed}
    assert {f"tuneyard/{name}.json", f"tuneyard/.store/{name}/{digest}/adapter_model.safetensors"} <= keys
    assert folder_behind(tree.cluster, JOBS, "adapters") is None
