# SPDX-License-Identifier: Apache-2.0
"""The example environments on the real Argo CD: nothing is applied before all that it needs is ready.

Each environment is brought up once; the tests of it follow in the order of this file and leave it settled.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from support.gitops.kinds import KINDS
from support.gitops.rendered_trees import Json, Tree, change_values, without_components
from support.gitops.stack import GitOpsStack, until

pytestmark = pytest.mark.gitops
UPDATED = ("cloudnative-pg", "versitygw-server", "mlflow")
"""Components of `open`: mlflow needs versitygw-server and postgres, and postgres needs cloudnative-pg."""
SETTLE_SECONDS = 240


@dataclass(frozen=True)
class Installed:
    """An environment that was brought up."""

    stack: GitOpsStack
    tree: Tree
    version: int
    seconds: float


@pytest.fixture(scope="module")
def installed(request: pytest.FixtureRequest, gitops: GitOpsStack) -> Iterator[Installed]:
    """The environment that the parameter names, settled."""
    tree = gitops.tree(request.param)
    version = gitops.install(tree)
    seconds = gitops.wait_until_settled(tree, SETTLE_SECONDS)
    yield Installed(gitops, tree, version, seconds)
    gitops.wipe()


LAB = pytest.param("lab", marks=pytest.mark.long)
"""It takes the longest; each of its components is in `open` or `airgapped` too."""
every = pytest.mark.parametrize("installed", ["open", LAB, "airgapped"], indirect=True)
cascading = pytest.mark.parametrize("installed", ["airgapped"], indirect=True)
small = pytest.mark.parametrize("installed", ["open"], indirect=True)


@every
def test_first_install_applies_nothing_before_its_needs_are_ready(installed: Installed) -> None:
    stack, tree = installed.stack, installed.tree
    started, settled = stack.history.started(installed.version), stack.history.settled(installed.version)
    assert {entry["metadata"]["name"] for entry in tree.applications()} <= started.keys()
    assert stack.breaches(tree, installed.version) == []
    assert None not in settled.values()


@every
def test_a_claim_that_nobody_uses_yet_holds_nothing_up(installed: Installed) -> None:
    claims = installed.stack.api.items("/api/v1/persistentvolumeclaims")
    assert claims, "this environment has no claims"
    assert {claim["status"]["phase"] for claim in claims} == {"Pending"}


@every
def test_models_come_after_the_platform(installed: Installed) -> None:
    stack, name = installed.stack, installed.tree.name
    started, settled = stack.history.started(installed.version), stack.history.settled(installed.version)
    models = {entry["metadata"]["name"] for entry in installed.tree.documents("models/")}
    platform = settled.keys() - models - {f"{name}-platform", f"{name}-models"}
    assert max(settled[each] or 0 for each in platform) < min(started[each] for each in models)


@small
def test_an_update_of_several_components_with_slow_charts_keeps_the_order(installed: Installed) -> None:
    stack = installed.stack
    stack.render_takes(5)
    try:
        tree = stack.tree("open", change_values(*UPDATED, to="slow"))
        version = stack.commit(tree, "several at once")
        stack.wait_until_settled(tree, SETTLE_SECONDS)
    finally:
        stack.render_takes(0)
    started = stack.history.started(version)
    assert {tree.application(name) for name in UPDATED} <= started.keys()
    assert stack.breaches(tree, version) == []


@small
def test_a_failing_component_holds_later_waves_and_a_fix_recovers_unaided(installed: Installed) -> None:
    stack, store = installed.stack, installed.tree.application("versitygw-server")
    mlflow = installed.tree.application("mlflow")
    with stack.operators.saying(store, "Failed"):
        bad = stack.tree("open", change_values("versitygw-server", "mlflow", to="bad"))
        version = stack.commit(bad, "versitygw fails")
        until("versitygw is Degraded", lambda: "Degraded" in stack.states()[store] or None, 180)
        fixed = stack.tree("open", change_values("versitygw-server", "mlflow", to="fixed"))
        stack.commit(fixed, "a fix")
        until("the fix is taken", lambda: has_value(stack, store, "fixed") or None, 180)
    stack.wait_until_settled(fixed, SETTLE_SECONDS)
    assert stack.breaches(fixed, version) == []
    applied = [
        w for w in stack.history.changes(version) if w.kind == "Application" and w.application == mlflow
    ]
    assert len(applied) == 1, "mlflow saw the bad release"


@small
def test_a_component_that_hangs_is_recovered_by_a_commit_alone(installed: Installed) -> None:
    stack, store = installed.stack, installed.tree.application("versitygw-server")
    mlflow = installed.tree.application("mlflow")
    set_sync_timeout(stack, "20")
    try:
        with stack.operators.saying(store, "Working"):
            stuck = stack.tree("open", change_values("versitygw-server", "mlflow", to="stuck"))
            version = stack.commit(stuck, "versitygw hangs")
            until("versitygw has it", lambda: has_value(stack, store, "stuck") or None, 180)
            fixed = stack.tree("open", change_values("versitygw-server", "mlflow", to="unstuck"))
            stack.commit(fixed, "another commit")
            until("the commit is taken", lambda: has_value(stack, store, "unstuck") or None, 180)
            assert mlflow not in stack.history.started(version)
        stack.wait_until_settled(fixed, SETTLE_SECONDS)
    finally:
        set_sync_timeout(stack, "1800")
    assert stack.breaches(fixed, version) == []


@small
def test_drift_is_healed(installed: Installed) -> None:
    stack = installed.stack
    quota = next(
        e for e in stack.api.items("/api/v1/resourcequotas") if e["metadata"]["namespace"] == "fine-tuning"
    )
    path = f"/api/v1/namespaces/fine-tuning/resourcequotas/{quota['metadata']['name']}"
    probe = stack.path("Probe", "data", "versitygw-server")
    content = stack.api.get(probe)["spec"]
    stack.api.send("DELETE", path)
    stack.api.send("PATCH", probe, {"spec": {"values": "by hand"}}, "application/merge-patch+json")
    until("the deleted object is back", lambda: stack.api.get(path), 180)
    until("the changed object is as before", lambda: stack.api.get(probe)["spec"] == content or None, 180)


@small
def test_components_that_leave_go_backwards_and_leave_their_objects(installed: Installed) -> None:
    stack = installed.stack
    tree, version = stack.tree("open", without_components("mlflow")), stack.history.now()
    stack.commit(tree, "no mlflow")
    leaving = {
        installed.tree.application(name)
        for name in ("mlflow", "versitygw", "versitygw-server", "postgres", "cloudnative-pg")
    }
    until("the Applications are pruned", lambda: leaving.isdisjoint(stack.applications()) or None, 180)
    stack.wait_until_settled(tree, SETTLE_SECONDS)
    assert stack.gone_too_early(installed.tree, version) == []
    assert stack.api.get("/api/v1/namespaces/mlflow"), "a namespace went with what was in it"
    assert stack.api.get(stack.path("Probe", "mlflow", "mlflow")), "teardown is `keep`"


@cascading
def test_components_that_leave_take_their_objects_but_not_their_data(installed: Installed) -> None:
    stack = installed.stack
    tree = stack.tree("airgapped", without_components("nemo-evaluator", "argo-workflows", "milvus"))
    version = stack.commit(tree, "no evaluator")
    leaving = {installed.tree.application(name) for name in ("nemo-evaluator", "argo-workflows", "milvus")}
    assert leaving <= stack.applications().keys()
    until("the Applications are pruned", lambda: leaving.isdisjoint(stack.applications()) or None, 180)
    stack.wait_until_settled(tree, SETTLE_SECONDS)
    assert stack.gone_too_early(installed.tree, version) == []
    assert names(stack, "NemoEvaluator") == set()
    assert any(name.endswith("/milvus") for name in names(stack, "Probe")), "the vectors are gone"


@cascading
def test_full_deletion_goes_backwards_and_keeps_what_holds_data(installed: Installed) -> None:
    stack, tree = installed.stack, installed.tree
    kept = {kind: names(stack, kind) for kind in ("PersistentVolumeClaim", "Namespace")}
    assert all(kept.values())
    assert names(stack, "NIMService")
    assert names(stack, "NIMCache")
    version = stack.history.now()
    present = stack.applications().keys()
    stack.delete_root(tree)
    assert stack.history.gone(version).keys() == present
    assert stack.gone_too_early(tree, version) == []
    assert names(stack, "NIMService") == set()
    assert names(stack, "NIMCache") == set()
    lasting = (e for e in tree.applications() if "finalizers" not in e["metadata"])
    databases = {release(entry) for entry in lasting if "chart" in entry["spec"]["source"]}
    assert names(stack, "Probe") == databases
    assert {kind: names(stack, kind) for kind in kept} == kept


def set_sync_timeout(stack: GitOpsStack, seconds: str) -> None:
    stack.add_settings("argocd-cmd-params-cm", {"controller.sync.timeout.seconds": seconds})
    stack.restart_controller()


def has_value(stack: GitOpsStack, application: str, value: str) -> bool:
    """Whether an Application carries a value of `change_values`."""
    source = (stack.application(application) or {}).get("spec", {}).get("source", {})
    return bool(source.get("helm", {}).get("valuesObject", {}).get("testedChange") == value)


def release(application: Json) -> str:
    """`<namespace>/<name>` of what the stand-in for an Application's chart makes."""
    spec = application["spec"]
    return f"{spec['destination']['namespace']}/{spec['source']['helm']['releaseName']}"


def names(stack: GitOpsStack, kind: str) -> set[str]:
    """`<namespace>/<name>` of all objects of a kind."""
    path = next(k for k in KINDS if k.kind == kind).everywhere
    return {f"{e['metadata'].get('namespace', '')}/{e['metadata']['name']}" for e in stack.api.items(path)}
