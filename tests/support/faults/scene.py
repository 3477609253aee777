# SPDX-License-Identifier: Apache-2.0
"""The set-up of a test with faults, and the end of every such test."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tuneyard_api import names
from tuneyard_api.pod_contract import Stage
from tuneyard_api.status import FineTuneJobStatus, State
from tuneyard_local.cluster import Cluster

from support.cluster.operator_process import JobOnCluster, OperatorProcess
from support.faults.history import PATIENCE, History, wait_until
from support.faults.invariants import assert_nothing_lost
from support.faults.pod_player import PodPlayer
from support.faults.proxy import FaultProxy
from support.samples import job_spec

FLAGS = ("--resync-seconds", "5", "--watch-seconds", "5", "--lease-seconds", "3")
"""Settings of an operator under test, with which minutes become seconds."""
OTHER_LEASE = "other-lease"
"""A namespace for the lease of an operator that shall know nothing of the first one's."""
CHAIN = ["a-prepare-1", "a-publish-1", "a-train-1"]


@dataclass
class Scene:
    """One job, one operator behind one proxy; more operators on demand."""

    cluster: Cluster
    history: History
    proxy: FaultProxy
    player: PodPlayer
    operator: OperatorProcess
    job: JobOnCluster
    account: Path
    operators: list[OperatorProcess] = field(default_factory=list)
    """All, to be ended."""

    def __post_init__(self) -> None:
        self.operators.append(self.operator)

    def start(self, *flags: str) -> None:
        """Start the operator, then create the job."""
        self.operator.start(*FLAGS, *flags)
        self.job.apply(job_spec())

    def add_operator(self, proxy: FaultProxy, name: str, lease: str = "default") -> OperatorProcess:
        """Another replica, behind a proxy of its own; not yet started."""
        log = self.operator.log.with_name(f"{name}.log")
        other = OperatorProcess(proxy.kubeconfig(self.account, log.parent, lease), log)
        self.operators.append(other)
        return other

    def finish(
        self, seconds: float = 180, *, jobs: list[str] | None = None, restart: bool = False
    ) -> FineTuneJobStatus:
        """Wait until the job succeeds with exactly those Jobs; `restart` starts an ended operator as a kubelet does."""

        def is_over() -> bool:
            if restart and not self.operator.is_running:
                self.operator.start(*FLAGS, wait=False)
            return self.job.status.state in {State.SUCCEEDED, State.FAILED}

        try:
            wait_until("the job is over", is_over, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {self.job.conditions()}") from error
        status = self.job.status
        assert status.state is State.SUCCEEDED, status.message
        self.check()
        assert self.job.jobs() == (CHAIN if jobs is None else jobs)
        return status

    def check(self) -> None:
        """Assert that the invariants hold."""
        assert_nothing_lost(self.history, self.job.namespace)

    def is_running(self, stage: Stage) -> bool:
        """Whether a pod of a stage runs."""
        return any(
            pod["metadata"]["labels"][names.LABEL_STAGE] == stage and pod["status"].get("phase") == "Running"
            for pod in self.history.present("Pod")
            if pod["metadata"]["namespace"] == self.job.namespace
        )

    def wait(self, what: str, look: Callable[[], object], seconds: float = PATIENCE) -> None:
        """Wait for anything."""
        wait_until(what, look, seconds)
