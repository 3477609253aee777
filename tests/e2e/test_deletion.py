# SPDX-License-Identifier: Apache-2.0
"""A job with deletionPolicy Delete: its adapter leaves the registry when the FineTuneJob is deleted."""

import pytest
from support.bench import build_job
from tuneyard_local import installation
from tuneyard_local.demo import ask
from tuneyard_local.progress import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_a_deleted_job_takes_its_adapter_out_of_the_registry(bench) -> None:
    bench.apply(build_job("stays"), build_job("passes", deletionPolicy="Delete"))
    adapters = {}
    for job in ("stays", "passes"):
        status = bench.wait_for_state(job, "Succeeded", 300)
        adapters[job] = bench.registry() / status["result"]["adapter"]["name"]
    with ask.forwarded(
        bench.cluster.kubeconfig, bench.namespace, installation.SERVICE, installation.SERVICE_PORT
    ) as url:
        assert {"stays", "passes"} <= set(ask.models(url))
        for job in adapters:
            bench.cluster.kubectl("-n", bench.namespace, "delete", "ftj", job, "--wait=false")
            wait_until(f"{job} to be gone", lambda job=job: bench.get("finetunejobs", job) is None, 120)
        assert adapters["stays"].is_dir()
        assert not adapters["passes"].exists()
        # A server drops an adapter when adapter-sync unloads it; none stands beside this one.
        assert "stays" in ask.models(url)
    wait_until("its pods to be gone", lambda: not bench.list("pods", "tuneyard.io/job=passes"), 60)
    assert not bench.list("jobs", "tuneyard.io/job=passes")
