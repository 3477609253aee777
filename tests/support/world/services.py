# SPDX-License-Identifier: Apache-2.0
"""The world in memory with a runtime whose trainings NeMo Customizer carries."""

from typing import Any

from tuneyard_api import names
from tuneyard_api.pod_contract import Stage

from support.nemo.data_store import Repository
from support.samples import job_spec, result_text, runtime_spec
from support.world.world import World

CUSTOMIZER, ENTITY_STORE, DATA_STORE = (
    "http://customizer.nemo",
    "http://entity-store.nemo",
    "http://data-store.nemo",
)
TARGET = "meta/tiny@1.0"
RECORDS = 40


def customizer_spec(**changes: Any) -> dict[str, Any]:
    """The `customizer` of a runtime, whose target exists."""
    model = {"base": {"pvc": {"claimName": "models", "path": "tiny"}}, "target": TARGET}
    spec = {"endpoint": CUSTOMIZER, "entityStore": ENTITY_STORE, "dataStore": DATA_STORE, "models": [model]}
    return {**spec, **changes}


def service_runtime(**changes: Any) -> dict[str, Any]:
    """A runtime whose trainings the Customizer carries, with a NIM that lists them."""
    served = {**runtime_spec()["servedModels"][0], "server": "nim"}
    spec = runtime_spec(
        methods=["lora", "sft", "dpo"], servedModels=[served], defaults={}, customizer=customizer_spec()
    )
    return {**spec, **changes}


class ServiceWorld(World):
    """One FineTuneJob `team/a` on a runtime of the Customizer, whose double has the target."""

    def __init__(self, *, spec: dict[str, Any] | None = None, runtime: dict[str, Any] | None = None) -> None:
        super().__init__(spec=spec or job_spec(), runtime=runtime or service_runtime())
        # The operator alone must see to it that nothing is started twice.
        self.nemo.customizer.may_repeat_names = True
        namespace, name = TARGET.split("/")
        self.nemo.customizer.targets.create(
            {
                "namespace": namespace,
                "name": name,
                "num_parameters": 1000,
                "precision": "bf16",
                "base_model": "tiny",
            },
            status="ready",
            model_path="tiny",
        )

    def prepare(self) -> None:
        """The prepare pod succeeds, and the operator does what is due then."""
        self.prepare_pod()
        self.settle()

    def prepare_pod(self) -> None:
        """The prepare pod succeeds: the records are in the Data Store."""
        self.settle()
        job = self.cluster.objects[names.JOB_KIND, "team", "a"]
        repo = f"team/{names.dataset_name('a', job['metadata']['uid'])}"
        repository = self.nemo.store.repositories.setdefault(("dataset", repo), Repository())
        lines = b"".join(b'{"prompt": "q%d", "completion": "a"}\n' % number for number in range(RECORDS))
        repository.commit("main", {"training/records.jsonl": lines}, "records")
        pod = self.make_pod("a-prepare-1")
        self.run_pod(pod)
        self.end_pod(pod, message=result_text(Stage.PREPARE, self.digest))

    def go_on(self, seconds: float, *, step: float = 2.0) -> None:
        """Time passes, and the job is looked at as often as it asks for."""
        end = self.moment.timestamp() + seconds
        while self.moment.timestamp() < end:
            self.advance(step)
            self.one_pass()
            self.settle()

    @property
    def customizations(self) -> list[dict[str, Any]]:
        return list(self.nemo.customizer.jobs.values())

    @property
    def states(self) -> list[str]:
        """State of each customization, in the order in which they were made."""
        for job in self.customizations:
            self.nemo.customizer._go_on(job)
        return [job["status"] for job in self.customizations]
