# SPDX-License-Identifier: Apache-2.0
"""The adapters over HTTP against a server that answers what a test wants: every answer has one meaning."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import kopf
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tuneyard_api.pod_contract import Stage
from tuneyard_operator.adapters.credentials import Credentials, NoCredentialsError, log_in
from tuneyard_operator.adapters.kubernetes import KubernetesCluster
from tuneyard_operator.adapters.metrics import Metrics, build_app
from tuneyard_operator.adapters.progress import HttpProgress
from tuneyard_operator.domain.measures import Census, Changes, Failed
from tuneyard_operator.domain.observed import SeenQueue
from tuneyard_operator.ports import ClusterError, NotServedError, RefusedError

Outcome = TypeVar("Outcome")
Answer = tuple[int, Any]


def with_server(answers: dict[str, Answer], work: Callable[[str, list[str]], Awaitable[Outcome]]) -> Outcome:
    """Run `work(url, asked)` beside a server that answers `METHOD /path` from a table."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(f"{request.method} {request.path_qs}")
        status, body = answers.get(f"{request.method} {request.path}", (404, {"message": "nothing here"}))
        return (
            web.Response(text=body, status=status)
            if isinstance(body, str)
            else web.json_response(body, status=status)
        )

    async def run() -> Outcome:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        async with TestServer(app) as server:
            return await work(str(server.make_url("")).rstrip("/"), asked)

    return asyncio.run(run())


def with_cluster(
    answers: dict[str, Answer], work: Callable[[KubernetesCluster], Awaitable[Outcome]]
) -> tuple[Outcome, list[str], list[tuple[str, str, int]]]:
    counted: list[tuple[str, str, int]] = []

    async def run(url: str, asked: list[str]) -> tuple[Outcome, list[str], list[tuple[str, str, int]]]:
        credentials = Credentials(kopf.ConnectionInfo(server=url, token="t"))
        cluster = KubernetesCluster(credentials, 4, lambda *call: counted.append(call))
        try:
            return await work(cluster), asked, counted
        finally:
            await cluster.close()

    return with_server(answers, run)


JOBS = "/apis/batch/v1/namespaces/team/jobs"
JOB = {"kind": "Job", "metadata": {"name": "a", "namespace": "team"}}


def test_a_created_object_is_returned_as_the_api_server_has_it() -> None:
    made = {**JOB, "metadata": {**JOB["metadata"], "uid": "u"}}
    body, asked, counted = with_cluster({f"POST {JOBS}": (201, made)}, lambda cluster: cluster.create(JOB))
    assert body == made
    assert asked == [f"POST {JOBS}?fieldManager=tuneyard-operator&fieldValidation=Strict"]
    assert counted == [("create", "jobs", 201)]


def test_an_object_that_is_there_already_is_no_error() -> None:
    there = (409, {"reason": "AlreadyExists"})
    assert with_cluster({f"POST {JOBS}": there}, lambda cluster: cluster.create(JOB))[0] is None


@pytest.mark.parametrize(("status", "cause"), [(403, "Forbidden"), (422, "Invalid"), (400, "Invalid")])
def test_a_refusal_keeps_the_api_server_s_words(status: int, cause: str) -> None:
    with pytest.raises(RefusedError, match="its words") as caught:
        with_cluster(
            {f"POST {JOBS}": (status, {"message": "its words"})}, lambda cluster: cluster.create(JOB)
        )
    assert caught.value.cause == cause


def test_a_namespace_that_ends_is_distinguished_from_a_quota_also_for_events() -> None:
    refusal = {"message": "its words", "details": {"causes": [{"reason": "NamespaceTerminating"}]}}
    events = "/apis/events.k8s.io/v1/namespaces/team/events"
    for path, work in (
        (JOBS, lambda cluster: cluster.create(JOB)),
        (events, lambda cluster: cluster.post_event("team", {"kind": "Event"})),
    ):
        with pytest.raises(RefusedError, match="its words") as caught:
            with_cluster({f"POST {path}": (403, refusal)}, work)
        assert caught.value.cause == "NamespaceTerminating"


@pytest.mark.parametrize("status", [409, 429, 500, 503])
def test_what_may_work_later_is_no_refusal(status: int) -> None:
    with pytest.raises(ClusterError, match=f"answered {status}: <html>") as caught:
        with_cluster({f"POST {JOBS}": (status, "<html>")}, lambda cluster: cluster.create(JOB))
    assert not isinstance(caught.value, RefusedError)


STATUS = {"metadata": {"uid": "uid-a", "resourceVersion": "7"}, "status": {"state": "Training"}}
HELD = {"metadata": {"uid": "uid-a", "resourceVersion": "7", "finalizers": ["x"]}}


@pytest.mark.parametrize(
    ("call", "sent"),
    [
        (lambda cluster: cluster.patch_status("team", "a", "uid-a", STATUS["status"], version=7), STATUS),
        (lambda cluster: cluster.set_finalizers("team", "a", "uid-a", ("x",), version=7), HELD),
    ],
    ids=["status", "finalizers"],
)
def test_what_is_written_is_bound_to_the_uid_and_the_version_it_was_decided_on(
    call: Callable[[KubernetesCluster], Awaitable[Any]], sent: dict[str, Any]
) -> None:
    bodies: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response({"message": "the object has been modified"}, status=409)

    async def write() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        async with TestServer(app) as server:
            credentials = Credentials(kopf.ConnectionInfo(server=str(server.make_url("")), token="t"))
            cluster = KubernetesCluster(credentials, 1, lambda *_: None)
            try:
                await call(cluster)
            finally:
                await cluster.close()

    with pytest.raises(ClusterError, match="modified"):
        asyncio.run(write())
    assert bodies == [sent]


def test_the_api_server_says_when_to_come_back() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"message": "later"}, status=429, headers={"Retry-After": "7"})

    async def ask_once() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        async with TestServer(app) as server:
            credentials = Credentials(kopf.ConnectionInfo(server=str(server.make_url("")), token="t"))
            cluster = KubernetesCluster(credentials, 1, lambda *_: None)
            try:
                await cluster.create(JOB)
            finally:
                await cluster.close()

    with pytest.raises(ClusterError, match="answered 429: later") as caught:
        asyncio.run(ask_once())
    assert caught.value.retry_after == 7


def test_no_server_at_all_is_an_error_with_what_was_tried() -> None:
    async def work() -> None:
        cluster = KubernetesCluster(
            Credentials(kopf.ConnectionInfo(server="http://127.0.0.1:1")), 1, lambda *_: None
        )
        try:
            await cluster.read("Job", "team", "a")
        finally:
            await cluster.close()

    with pytest.raises(ClusterError, match="get jobs: ClientConnectorError"):
        asyncio.run(work())


def test_a_kind_that_is_not_served_is_named() -> None:
    async def work(cluster: KubernetesCluster) -> list[Any]:
        return [page async for page in cluster.pages("FineTuneJob")]

    with pytest.raises(NotServedError, match=r"finetunejobs of tuneyard\.io are not served"):
        with_cluster({}, work)


def test_a_verb_that_no_role_allows_is_never_sent() -> None:
    with pytest.raises(AssertionError, match="patch of Job is not among the rights"):
        with_cluster({}, lambda cluster: cluster._call("patch", "Job", "team", "a"))


def test_claims_of_a_burst_are_listed_once() -> None:
    path = "/api/v1/namespaces/team/persistentvolumeclaims"
    listed = (200, {"items": [{"metadata": {"name": "data"}}]})

    async def work(cluster: KubernetesCluster) -> frozenset[str]:
        await cluster.claims("team")
        return await cluster.claims("team")

    claims, asked, _ = with_cluster({f"GET {path}": listed}, work)
    assert claims == {"data"}
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("/api/v1/namespaces/team/persistentvolumeclaims", lambda cluster: cluster.claims("team")),
        ("/api/v1/namespaces/team/events", lambda cluster: cluster.warnings("team")),
        (JOBS, lambda cluster: cluster.jobs_of("team", "a")),
        ("/api/v1/namespaces/team/pods", lambda cluster: cluster.pods_of("team", "a-train-1")),
        ("/api/v1/namespaces/team/pods", lambda cluster: cluster.all_pods_of("team", "a")),
        ("/apis/tuneyard.io/v1alpha1/finetunejobs", lambda cluster: listed(cluster, "FineTuneJob")),
    ],
    ids=["claims", "warnings", "jobs_of", "pods_of", "all_pods_of", "pages"],
)
@pytest.mark.parametrize(
    "answer", [{"items": []}, {"items": None, "metadata": {"resourceVersion": "7"}}, {}], ids=str
)
def test_a_list_of_nothing_is_empty_however_it_is_written(
    path: str, call: Callable[[KubernetesCluster], Awaitable[Any]], answer: dict[str, Any]
) -> None:
    assert not with_cluster({f"GET {path}": (200, answer)}, call)[0]


async def listed(cluster: KubernetesCluster, kind: Any) -> list[Any]:
    """The objects of all pages."""
    return [body async for page in cluster.pages(kind) for body in page.objects]


def test_progress_is_best_effort() -> None:
    async def work(url: str, _: list[str]) -> list[Any]:
        async with aiohttp.ClientSession() as session:
            reader = HttpProgress(session)
            return [await reader.read(f"{url}/{page}") for page in ("good", "bad", "none")] + [
                await reader.read("http://127.0.0.1:1/progress")
            ]

    good = {"stage": "train", "phase": "training", "step": 3, "of": 9, "somethingNew": 1}
    read, *others = with_server({"GET /good": (200, good), "GET /bad": (200, "?")}, work)
    assert (read.stage, read.step) == (Stage.TRAIN, 3)
    assert others == [None, None, None]


def test_the_port_tells_kubelet_and_prometheus() -> None:
    is_leader = True
    census = Census(
        {("Training", "Training"): 2},
        gpus={"Training": 16},
        longest_wait={"Queued": 60.0},
        tokens_per_second=5.5,
    )
    metrics = Metrics(lambda: census, lambda: 7, lambda: is_leader)
    metrics.changed(
        "team",
        Changes(
            ended=("Failed", "GateFailed"),
            failed=(Failed("train", "OutOfMemory"),),
            queue_seconds=(20.0,),
            held_seconds=90,
            useful_seconds=60,
            served_seconds=3.0,
        ),
    )
    metrics.changed("team", Changes(useful_seconds=-4))
    metrics.changed("other", Changes(useful_seconds=3))
    metrics.requested("create", "jobs", 201)
    metrics.passed(0.01, failed=True)
    alive = True

    async def work() -> list[tuple[int, str]]:
        nonlocal alive, is_leader
        pages = []
        async with (
            TestServer(build_app(metrics, lambda: alive, lambda: False)) as server,
            aiohttp.ClientSession() as session,
        ):
            for page in ("healthz", "readyz", "metrics"):
                async with session.get(server.make_url(f"/{page}")) as answer:
                    pages.append((answer.status, await answer.text()))
            alive = False
            async with session.get(server.make_url("/healthz")) as answer:
                pages.append((answer.status, await answer.text()))
            is_leader = False
            async with session.get(server.make_url("/metrics")) as answer:
                pages.append((answer.status, await answer.text()))
        return pages

    healthy, ready, scraped, dead, standby = asyncio.run(work())
    assert (healthy, ready, dead) == ((200, "ok\n"), (503, "no\n"), (503, "no\n"))
    assert 'tuneyard_jobs{reason="Training",state="Training"} 2.0' in scraped[1]
    for line in (
        "tuneyard_leader 1.0",
        'tuneyard_gpus{state="Training"} 16.0',
        'tuneyard_longest_wait_seconds{state="Queued"} 60.0',
        "tuneyard_jobs_tokens_per_second 5.5",
        'tuneyard_job_ends_total{reason="GateFailed",state="Failed"} 1.0',
        'tuneyard_attempt_failures_total{failure_class="OutOfMemory",stage="train"} 1.0',
        'tuneyard_queue_seconds_bucket{le="30.0"} 1.0',
        'tuneyard_held_gpu_seconds_total{namespace="team"} 90.0',
        'tuneyard_held_gpu_seconds_total{namespace="other"} 0.0',
        "tuneyard_useful_gpu_seconds_total 60.0",
        "tuneyard_served_seconds_sum 3.0",
        "tuneyard_queue_length 7.0",
    ):
        assert line in scraped[1]
    assert "tuneyard_leader 0.0" in standby[1]
    assert "tuneyard_jobs{" not in standby[1], "sums over replicas count each job once"
    assert "tuneyard_reconcile_errors_total 1.0" in scraped[1]
    assert 'tuneyard_api_requests_total{code="201",resource="jobs",verb="create"} 1.0' in scraped[1]


def test_without_credentials_it_says_what_it_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(NoCredentialsError, match=r"\$KUBECONFIG nor ~/.kube/config"):
        log_in()


@pytest.mark.parametrize("status", [200, 202, 404, 409])
def test_an_object_is_deleted_by_its_uid_and_one_that_is_gone_or_another_is_left(status: int) -> None:
    answers = {f"DELETE {JOBS}/a": (status, {})}
    _, asked, counted = with_cluster(answers, lambda cluster: cluster.delete("Job", "team", "a", "uid-a"))
    assert asked == [f"DELETE {JOBS}/a"]
    assert counted == [("delete", "jobs", status)]


def test_a_deletion_that_fails_is_reported() -> None:
    with pytest.raises(ClusterError, match="answered 500"):
        with_cluster(
            {f"DELETE {JOBS}/a": (500, {})}, lambda cluster: cluster.delete("Job", "team", "a", "uid-a")
        )


def test_the_jobs_of_a_finetunejob_are_selected_by_label() -> None:
    found, asked, _ = with_cluster(
        {f"GET {JOBS}": (200, {"items": [JOB]})}, lambda cluster: cluster.jobs_of("team", "a")
    )
    assert found == (JOB,)
    assert asked == [f"GET {JOBS}?labelSelector=tuneyard.io/job%3Da"]


def test_all_pods_of_a_finetunejob_are_selected_by_label() -> None:
    pods = "/api/v1/namespaces/team/pods"
    found, asked, _ = with_cluster(
        {f"GET {pods}": (200, {"items": [JOB]})}, lambda cluster: cluster.all_pods_of("team", "a")
    )
    assert found == (JOB,)
    assert asked == [f"GET {pods}?labelSelector=tuneyard.io/job%3Da"]


_WORKLOAD = {"metadata": {"name": "job-a"}, "spec": {}, "status": {}}
_QUEUE = {
    "GET /apis/kueue.x-k8s.io/v1beta2/namespaces/team/workloads": (200, {"items": [_WORKLOAD]}),
    "GET /apis/kueue.x-k8s.io/v1beta2/namespaces/team/localqueues/gpus": (
        200,
        {"spec": {"clusterQueue": "team-a"}},
    ),
}
_PENDING = "GET /apis/visibility.kueue.x-k8s.io/v1beta2/namespaces/team/localqueues/gpus/pendingworkloads"


def test_the_place_in_a_queue_is_counted_from_one_and_asked_once_for_a_burst() -> None:
    pending = [
        {"metadata": {"name": "job-b"}, "positionInClusterQueue": 0, "positionInLocalQueue": 0},
        {"metadata": {"name": "job-a"}, "positionInClusterQueue": 4, "positionInLocalQueue": 1},
    ]

    async def work(cluster: KubernetesCluster) -> list[SeenQueue]:
        return [await cluster.queue_of("team", "u", "gpus") for _ in range(3)]

    seen, asked, _ = with_cluster({**_QUEUE, _PENDING: (200, {"items": pending})}, work)
    assert seen == [SeenQueue("job-a", "team-a", position=5)] * 3
    assert asked.count(_PENDING) == 1


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_queue_tells_its_reason_also_where_kueue_tells_no_places(status: int) -> None:
    answers = {
        **_QUEUE,
        _PENDING: (status, {"message": "the server is currently unable to handle the request"}),
    }
    seen, _, _ = with_cluster(answers, lambda cluster: cluster.queue_of("team", "u", "gpus"))
    assert seen == SeenQueue("job-a", "team-a")
