# SPDX-License-Identifier: Apache-2.0
"""What `make demo-gitops` serves and says: the committed tree with another address, and each Application's news once."""

from typing import Any

import pytest
from tuneyard_local.demo.rollout import Rollout, images_of, is_settled, read_tree, why_not
from tuneyard_local.paths import REPOSITORY

ADDRESS = "http://127.0.0.1:1/git/x.git"


def application(name: str, words: str, wave: int | None = None, revision: str = "new") -> dict[str, Any]:
    sync, health = words.split("/")
    annotations = {} if wave is None else {"argocd.argoproj.io/sync-wave": str(wave)}
    status = {"sync": {"status": sync, "revision": revision}, "health": {"status": health}}
    return {"metadata": {"name": name, "annotations": annotations}, "status": status}


def test_of_the_committed_tree_only_the_address_is_replaced() -> None:
    tree = read_tree(REPOSITORY, "demo", ADDRESS)
    differing = {
        line
        for path, text in tree.files.items()
        for line, own in zip(text.splitlines(), (REPOSITORY / path).read_text().splitlines(), strict=True)
        if line != own
    }
    assert {line.split()[-1] for line in differing} == {ADDRESS}
    assert {line.split()[0] for line in differing} == {"repoURL:", "url:", "-"}


def test_everything_that_an_application_follows_is_served() -> None:
    tree = read_tree(REPOSITORY, "demo", ADDRESS)
    for entry in tree.named("Application").values():
        assert any(path.startswith(entry["spec"]["source"]["path"]) for path in tree.files)
    assert tree.namespace == "fine-tuning"
    assert tree.job_names == ["docstrings"]
    assert images_of(tree).keys() == {"operator", "trainer"}


@pytest.mark.parametrize(
    ("words", "revision", "expected"),
    [
        ("Synced/Healthy", "new", True),
        ("Synced/Healthy", "old", False),
        ("OutOfSync/Healthy", "new", False),
        ("Synced/Progressing", "new", False),
    ],
)
def test_settled_is_healthy_at_this_commit(words: str, revision: str, expected: bool) -> None:
    assert is_settled(application("a", words, revision=revision), "new") is expected


def test_news_are_said_once_in_the_order_of_waves() -> None:
    rollout = Rollout("new")
    first = [application("b", "OutOfSync/Missing", 1), application("a", "Synced/Healthy", 0)]
    assert [line.split() for line in rollout.news(first, 1)] == [
        ["wave", "0", "a", "Synced/Healthy"],
        ["wave", "1", "b", "OutOfSync/Missing"],
    ]
    assert rollout.news(first, 2) == []
    second = [application("b", "Synced/Healthy", 1), first[1], application("root", "Synced/Progressing")]
    assert len(rollout.news(second, 3)) == 2
    rows = [line.split() for line in rollout.table(second)]
    assert rows[1] == ["root", "root", "3", "s", "-"]
    assert rows[3] == ["wave", "1", "b", "1", "s", "3", "s"]


def test_why_not_names_the_resource_and_the_operation() -> None:
    ill = application("a", "OutOfSync/Degraded")
    ill["status"]["resources"] = [
        {"kind": "FineTuneJob", "name": "j", "health": {"status": "Degraded", "message": "BadInput"}},
        {"kind": "Service", "name": "s"},
    ]
    ill["status"]["operationState"] = {"phase": "Failed", "message": "one or more objects failed"}
    assert why_not(ill) == "a is OutOfSync/Degraded: FineTuneJob/j: BadInput; one or more objects failed"
