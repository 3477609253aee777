# SPDX-License-Identifier: Apache-2.0
"""The measuring of `make bench-operator`: what it counts and how it judges, without a cluster."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from throughput.accounting import count_requests, machine_busy_seconds, process_usage, requests_per_job
from throughput.pod_stages import DIGEST_MARK, build_result, render_stages
from throughput.report import aims, judge, medians, summary
from throughput.timeline import Timeline, percentile
from throughput.workload import build_chain, job_names
from tuneyard_api import names
from tuneyard_api.pod_contract import MAX_RESULT_BYTES, Stage, StageResult
from tuneyard_operator.domain.failures import read_result
from tuneyard_operator.domain.observed import SeenPod
from tuneyard_operator.domain.parsing import parse_pod

METRICS = """
apiserver_request_total{code="201",component="apiserver",resource="jobs",scope="resource",subresource="",verb="POST"} 4
apiserver_request_total{code="409",component="apiserver",resource="jobs",scope="resource",subresource="",verb="POST"} 1
apiserver_request_total{code="200",component="apiserver",resource="jobs",scope="resource",subresource="status",verb="PUT"} 6
apiserver_request_total{code="200",component="apiserver",resource="leases",scope="resource",subresource="",verb="PUT"} 99
apiserver_request_total{code="200",component="apiserver",resource="jobs",scope="namespace",subresource="",verb="WATCH"} 99
apiserver_request_total{code="200",component="apiserver",resource="",scope="",subresource="/readyz",verb="GET"} 99
apiserver_request_duration_seconds_count{resource="jobs",verb="POST"} 99
"""


def pod_of(job: str, stage: str, phase: str) -> dict:
    return {
        "metadata": {"labels": {names.LABEL_JOB: job, names.LABEL_STAGE: stage}},
        "status": {"phase": phase},
    }


def test_requests_are_counted_by_verb_and_resource_without_watches_and_heartbeats():
    assert count_requests(METRICS) == {"POST jobs": 5, "PUT jobs/status": 6}


def test_requests_a_job_are_the_difference_of_two_readings_most_first():
    per_job = requests_per_job(
        {"POST jobs": 5}, {"POST jobs": 9, "PUT jobs/status": 6, "GET secrets": 0}, jobs=2
    )
    assert list(per_job.items()) == [("PUT jobs/status", 3.0), ("POST jobs", 2.0)]


def test_a_process_is_read_even_if_its_name_has_spaces_and_brackets(tmp_path):
    folder = tmp_path / "7"
    folder.mkdir()
    (folder / "stat").write_text("7 (a) b) R 1 7 7 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 5 0 0\n")
    (folder / "status").write_text("Name:\ta\nVmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\n")
    usage = process_usage(7, tmp_path)
    assert (usage.cpu_seconds, usage.rss_mb, usage.peak_mb) == (2.0, 100.0, 200.0)


def test_the_machine_is_busy_but_for_idle_and_waiting_for_disks():
    assert machine_busy_seconds("cpu  100 0 50 900 70 0 0 50 30 0\ncpu0 1 1 1 1 1 1 1 1\n") == 2.0


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([5.0], 0.99, 5.0),
        ([1, 2, 3, 4], 0.5, 2),
        (range(1, 101), 0.99, 99),
        (range(1, 501), 0.99, 495),
        ([3, 1], 0, 1),
    ],
)
def test_percentiles_are_of_the_nearest_rank(values, share, expected):
    assert percentile(values, share) == expected


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), st.floats(0, 1))
def test_a_percentile_is_a_value_that_enough_values_do_not_exceed(values, share):
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_a_timeline_takes_the_first_pod_the_end_of_the_publish_pod_and_the_first_done():
    timeline = Timeline(["a", "b"])
    for start, job in ((10.0, "a"), (11.0, "b")):
        timeline.sent(job, start)
        timeline.saw_pod(pod_of(job, "prepare", "Pending"), start + 0.5)
        timeline.saw_pod(pod_of(job, "prepare", "Succeeded"), start + 1)
        timeline.saw_pod(pod_of(job, "publish", "Running"), start + 2)
        timeline.saw_pod(pod_of(job, "publish", "Succeeded"), start + 3)
        timeline.saw_pod(pod_of(job, "publish", "Succeeded"), start + 3.9)
        assert not timeline.finished.is_set()
        timeline.saw_done(job, start + 4)
        timeline.saw_done(job, start + 9)
    assert timeline.finished.is_set()
    figures = timeline.figures()
    assert (figures.wall_seconds, figures.jobs_per_second) == (5.0, 0.4)
    assert figures.created_to_first_pod_ms == {"p50": 500.0, "p99": 500.0}
    assert figures.last_pod_ended_to_done_ms == {"p50": 1000.0, "p99": 1000.0}


def test_what_was_not_seen_is_no_figure():
    timeline = Timeline(["a"])
    timeline.sent("a", 1.0)
    timeline.saw_done("a", 2.0)
    with pytest.raises(ValueError, match="first pod of 1 jobs was not seen"):
        timeline.figures()


def run_of(
    arm: str, rate: float, requests: float, peak: float = 0.0, *, p50: float = 100.0
) -> dict[str, Any]:
    """A quiet run; its first pods came after `p50` ms, those of plain Jobs after 100 ms."""
    memory = {"operatorMemoryMB": {"start": 70.0, "peak": peak, "end": 90.0}} if arm == "operator" else {}
    first = {"createdToFirstPodMs": {"p50": p50, "p99": 900.0}}
    return {"arm": arm, "noisy": False, "jobsPerSecond": rate, "requestsPerJob": requests, **first, **memory}


def test_medians_are_of_numbers_only_and_count_what_is_missing_as_none():
    runs = [
        run_of("operator", rate, 1, 100) | {"kinds": kinds}
        for rate, kinds in ((1, {"a": 3.0}), (2, {}), (9, {}))
    ]
    assert medians(runs) == {
        "jobsPerSecond": 2,
        "requestsPerJob": 1,
        "createdToFirstPodMs": {"p50": 100, "p99": 900},
        "operatorMemoryMB": {"start": 70, "peak": 100, "end": 90},
        "kinds": {"a": 0},
    }


@pytest.mark.parametrize(
    ("rate", "p50", "requests", "peak", "met"),
    [
        (8.5, 150.0, 24.0, 100.0, [True, True, True, True]),
        (8.4, 150.0, 24.0, 100.0, [False, True, True, True]),
        (8.5, 151.0, 24.0, 100.0, [True, False, True, True]),
        (8.5, 150.0, 24.1, 100.0, [True, True, False, True]),
        (8.5, 150.0, 24.0, 100.1, [True, True, True, False]),
    ],
)
def test_each_aim_is_judged_at_its_bound(rate, p50, requests, peak, met):
    judged = aims([run_of("operator", rate, requests, peak, p50=p50)], [run_of("plainJobs", 10.0, 20.0)])
    assert [aim.met for aim in judged] == met


def test_memory_is_judged_by_the_worst_run():
    runs = [run_of("operator", 5, 20, peak) for peak in (90, 90, 200)]
    assert not aims(runs, [run_of("plainJobs", 10, 20)])[3].met


def test_the_committed_result_says_of_each_aim_whether_it_is_met():
    """Its runs are judged by the aims of today."""
    committed = json.loads((Path(__file__).parents[2] / "bench/results/operator.json").read_text())
    judged = judge(committed["runs"])
    assert (committed["aims"], committed["medians"]) == (judged["aims"], judged["medians"])


def both(number: int, rate: float, noisy: bool = False) -> list[dict]:
    runs = [run_of("operator", rate, 40.0, 90.0), run_of("plainJobs", 10.0, 20.0)]
    return [run | {"round": number, "noisy": noisy} for run in runs]


@pytest.mark.parametrize(
    ("runs", "judged", "rate"),
    [
        ([*both(1, 5), *both(2, 1, noisy=True), *both(3, 7)], [1, 3], 6),
        ([*both(1, 5, noisy=True), *both(2, 1, noisy=True)], [1, 2], 3),
        ([*both(1, 5), both(2, 1, noisy=True)[0], both(2, 1)[1]], [1], 5),
    ],
    ids=["quiet rounds only", "all when none is quiet", "a round is as noisy as its noisier run"],
)
def test_noisy_rounds_are_kept_but_not_judged(runs, judged, rate):
    result = judge(runs)
    assert (result["judgedRounds"], result["medians"]["operator"]["jobsPerSecond"]) == (judged, rate)
    assert result["runs"] == runs


def test_a_missed_aim_and_noise_are_said_aloud():
    text = summary({"jobs": 1, **judge([*both(1, 1.0, noisy=True)])})
    assert "NOISY: in 2 of 2 runs" in text
    assert "MISSED throughput, share of plain Jobs': 0.1" in text
    assert "met  operator's peak memory" in text


@pytest.mark.parametrize("stage", Stage)
def test_the_operator_takes_the_result_that_a_fake_pod_ends_with(stage):
    text = build_result(stage).model_dump_json(by_alias=True)
    assert len(text) < MAX_RESULT_BYTES
    assert "`" not in text, "it stands between backticks in a template"
    job = build_chain("job-0").jobs[list(Stage).index(stage)]
    digest = build_chain("job-0").digest
    pod = parse_pod(ended_pod(job, text.replace(DIGEST_MARK, digest)))
    assert isinstance(pod, SeenPod)
    assert isinstance(read_result(pod, stage, digest), StageResult)


def ended_pod(job: dict, message: str) -> dict:
    template = job["spec"]["template"]
    container = template["spec"]["containers"][0]["name"]
    terminated = {"exitCode": 0, "reason": "Completed", "message": message}
    return {
        "metadata": {**template["metadata"], "name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {
            "phase": "Succeeded",
            "containerStatuses": [{"name": container, "state": {"terminated": terminated}}],
        },
    }


def test_the_stages_are_yaml_with_nothing_left_to_fill_in_but_the_digest():
    digests = [build_chain(name).digest for name in job_names(3)]
    text = render_stages("job-", digests)
    documents = list(yaml.safe_load_all(text))
    assert [document["kind"] for document in documents] == ["KwokConfiguration", *["Stage"] * 4]
    assert "".join(digests) in text
    assert {word for word in text.split("@")[1:-1:2] if word.isupper()} <= {"DIGEST"}


def test_plain_jobs_are_the_operators_own_but_for_the_owner():
    chain = build_chain("job-7")
    assert [job["metadata"]["name"] for job in chain.jobs] == [
        "job-7-prepare-1",
        "job-7-train-1",
        "job-7-publish-1",
    ]
    assert [body["kind"] for body in chain.storage] == ["ConfigMap", "PersistentVolumeClaim"]
    for body in (*chain.storage, *chain.jobs):
        assert "ownerReferences" not in body["metadata"]
        assert body["metadata"]["annotations"][names.ANNOTATION_PLAN] == chain.digest
