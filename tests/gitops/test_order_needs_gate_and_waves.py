# SPDX-License-Identifier: Apache-2.0
"""That the tests of the order can fail: the same cases without our health check, and without the rendered waves.

`open` is brought up once for each, with charts that take a while to render and `teardown: cascade`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from support.gitops.rendered_trees import Change, Tree, cascading, change_values, together, without_components
from support.gitops.stack import GATE, GitOpsStack, until

pytestmark = [pytest.mark.gitops, pytest.mark.long]
UPDATED = ("cloudnative-pg", "versitygw-server", "mlflow")
SETTLE_SECONDS = 240
RENDER_SECONDS = 8


@dataclass(frozen=True)
class Broken:
    """An environment that was brought up without one of the two."""

    stack: GitOpsStack
    lacks: str
    version: int
    """The newest resource version of before."""

    def tree(self, *changes: Change) -> Tree:
        tree = self.stack.tree("open", together(cascading, *changes))
        return tree.without_waves() if self.lacks == "waves" else tree

    def breaches_of(self, application: str, version: int) -> list[str]:
        breaches = self.stack.breaches(self.tree(), version)
        return [breach for breach in breaches if breach.startswith(f"open-{application} ")]


@pytest.fixture(scope="module", params=["gate", "waves"])
def broken(request: pytest.FixtureRequest, gitops: GitOpsStack) -> Iterator[Broken]:
    gitops.render_takes(RENDER_SECONDS)
    found = Broken(gitops, request.param, gitops.history.now())
    tree = found.tree()
    gitops.install(tree, {GATE: None} if found.lacks == "gate" else {})
    gitops.wait_until_settled(tree, SETTLE_SECONDS)
    yield found
    gitops.render_takes(0)
    gitops.wipe()
    gitops.bootstrap(gitops.tree("open"))


def test_first_install_breaks_the_order(broken: Broken) -> None:
    assert broken.breaches_of("mlflow", broken.version)
    history = broken.stack.history
    started, settled = history.started(broken.version), history.settled(broken.version)
    model = "open-model-qwen-2-5-7b"
    assert any((settled[name] or 0) > started[model] for name in settled if name != model)


def test_an_update_of_several_breaks_the_order(broken: Broken) -> None:
    tree = broken.tree(change_values(*UPDATED, to="several"))
    version = broken.stack.commit(tree, "several at once")
    broken.stack.wait_until_settled(tree, SETTLE_SECONDS)
    history = broken.stack.history
    assert broken.breaches_of("mlflow", version), (history.started(version), history.settled(version))


@pytest.mark.parametrize("state", ["Failed", "Working"])
def test_later_waves_do_not_wait_for_what_fails_or_hangs(broken: Broken, state: str) -> None:
    tree = broken.tree(change_values("versitygw-server", "mlflow", to=state))
    with broken.stack.operators.saying("open-versitygw-server", state):
        version = broken.stack.commit(tree, f"versitygw is {state}")
        started = broken.stack.history.started
        until("mlflow is applied all the same", lambda: "open-mlflow" in started(version) or None, 180)
    broken.stack.wait_until_settled(tree, SETTLE_SECONDS)
    assert broken.breaches_of("mlflow", version)


def test_prune_and_deletion_go_backwards_by_the_waves_alone(broken: Broken) -> None:
    """Argo CD deletes wave by wave whatever the health checks say."""
    stack = broken.stack
    whole, smaller = broken.tree(), broken.tree(without_components("mlflow"))
    version = stack.commit(smaller, "no mlflow")
    stack.wait_until_settled(smaller, SETTLE_SECONDS)
    leaving = {
        "open-mlflow",
        "open-versitygw",
        "open-versitygw-server",
        "open-postgres",
        "open-cloudnative-pg",
    }
    until("the Applications are pruned", lambda: leaving.isdisjoint(stack.applications()) or None, 180)
    pruned = stack.history.now()
    stack.delete_root(whole)
    assert bool(stack.gone_too_early(whole, version)) == (broken.lacks == "waves")
    assert leaving <= stack.history.gone(version).keys()
    assert stack.history.gone(pruned)
