# SPDX-License-Identifier: Apache-2.0
"""Customizer: targets, configs, and jobs that go on by the clock, so that nothing runs in the background."""

import json
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from support.nemo.data_store import DataStore, Repository
from support.nemo.entities import Entities, Entity, EntityStore, checked, page
from support.nemo.wire import Refused, Reply, Request, Unprocessable, reply

FINETUNING = ("lora", "lora_merged", "all_weights")
TRAINING = ("sft", "dpo", "distillation", "grpo")
OVER = frozenset({"cancelled", "failed", "completed"})


@dataclass
class Pace:
    """How long each phase of a job takes, in seconds."""

    created: float = 1.0
    pending: float = 1.0
    running: float = 8.0
    cancelling: float = 1.0


class Customizer:
    """The service. `failures` says, by the name of a job, with which words it fails half way."""

    def __init__(self, now: Callable[[], datetime], entities: EntityStore, store: DataStore) -> None:
        self.now, self.entities, self.store, self.pace = now, entities, store, Pace()
        self.targets = Entities("customization_target", now, {"num_parameters": int, "precision": str})
        self.configs = Entities(
            "customization_config", now, {"max_seq_length": int, "training_options": list}
        )
        self.jobs: dict[str, Entity] = {}
        self.failures: dict[str, str] = {}
        self.started: list[str] = []
        """Names of the jobs that were ever created, in order."""
        self.may_repeat_names = False
        """Whether a second job of one name is taken, as in a service that does not hold names unique."""

    def serve(self, request: Request, parts: list[str]) -> Reply:
        kind, rest = parts[0], parts[1:]
        if kind == "targets":
            if request.method == "POST" and not rest:
                return reply(self._create_target(request.json()), 201)
            return self.targets.serve(request, rest)
        if kind == "configs":
            if request.method == "POST" and not rest:
                return reply(self._create_config(request.json()), 201)
            return self.configs.serve(request, rest)
        if kind != "jobs":
            raise Refused(404, f"no such route: {request.path}")
        return self._jobs(request, rest)

    def _create_target(self, body: Any) -> Entity:
        checked(body, self.targets.required)
        path = str(body.get("model_path") or body.get("name") or "model").replace("@", "_")
        return self.targets.create(body, status="ready", model_path=path, enabled=body.get("enabled", True))

    def _create_config(self, body: Any) -> Entity:
        checked(body, self.configs.required)
        for at, option in enumerate(body["training_options"]):
            needed = {"training_type": str, "finetuning_type": str, "num_gpus": int, "micro_batch_size": int}
            for name, kind in needed.items():
                if not isinstance(option.get(name), kind):
                    raise Unprocessable(f"training_options.{at}.{name}", "is required")
        if isinstance(body.get("target"), str):
            self.targets.get(_place(body["target"]))
        return self.configs.create(body)

    def _jobs(self, request: Request, rest: list[str]) -> Reply:
        for job in self.jobs.values():
            self._go_on(job)
        if not rest:
            if request.method == "POST":
                return reply(_shown(self._create_job(request.json())), 201)
            shown = page(self.jobs.values(), request.query)
            return reply({**shown, "data": [_shown(job) for job in shown["data"]]})
        if rest[0] not in self.jobs:
            raise Refused(404, f"job {rest[0]} does not exist")
        job = self.jobs[rest[0]]
        if rest[1:] == ["cancel"]:
            self._cancel(job)
        elif rest[1:] == ["status"]:
            return reply(job["status_details"])
        elif rest[1:] == ["container-logs"]:
            return reply({"entries": {}, "error": None})
        elif request.method == "DELETE":
            del self.jobs[rest[0]]
            return reply({"id": rest[0], "message": "deleted"})
        return reply(_shown(job))

    def _create_job(self, body: Any) -> Entity:
        checked(body, {"hyperparameters": dict})
        config, dataset, wanted = body.get("config"), body.get("dataset"), body["hyperparameters"]
        if not isinstance(config, str | dict) or not isinstance(dataset, str | dict):
            raise Unprocessable("config", "config and dataset are required, as text or object")
        kinds = (wanted.get("finetuning_type"), wanted.get("training_type") or "sft")
        if kinds[0] not in FINETUNING or kinds[1] not in TRAINING:
            raise Unprocessable("hyperparameters.finetuning_type", f"no such way to train: {kinds}")
        found = self.configs.get(_place(config)) if isinstance(config, str) else config
        option = self._option(found, kinds)
        target = self.targets.get(_place(found["target"]))
        job_id, moment = f"cust-{uuid.uuid4().hex[:22]}", self.now().isoformat()
        name, namespace = body.get("name") or job_id, body.get("namespace") or "default"
        taken = [job for job in self.jobs.values() if (job["namespace"], job["name"]) == (namespace, name)]
        if taken and not self.may_repeat_names:
            raise Refused(409, f"job {namespace}/{name} exists already")
        records = self._records(dataset)
        self.started.append(name)
        steps = math.ceil(records / (wanted.get("batch_size") or 8))
        all_steps = wanted.get("max_steps") or steps * (wanted.get("epochs") or 1)
        self.jobs[job_id] = {
            **body,
            "id": job_id,
            "name": name,
            "namespace": namespace,
            "config": {**found, "target": target},
            "config_snapshot": {
                "base_model": target.get("base_model") or target["name"],
                "max_seq_length": found["max_seq_length"],
                "precision": target["precision"],
                "training_option": option,
            },
            "status": "created",
            "created_at": moment,
            "updated_at": moment,
            "status_details": {"created_at": moment, "updated_at": moment, "status": "created"},
            "_steps": (all_steps, steps),
            "_since": self.now(),
        }
        return self.jobs[job_id]

    def _option(self, config: Entity, kinds: tuple[Any, Any]) -> Entity:
        for option in config["training_options"]:
            if (option["finetuning_type"], option["training_type"]) == kinds:
                return dict(option)
        raise Unprocessable("config", f"the config has no training option {kinds}")

    def _records(self, dataset: str | Entity) -> int:
        """The number of training records in the Data Store."""
        if isinstance(dataset, str):
            dataset = self.entities.kinds["datasets"].get(_place(dataset))
        url = (
            dataset.get("files_url")
            or self.entities.kinds["datasets"].get((dataset["namespace"], dataset["name"]))["files_url"]
        )
        repository = self.store.repositories.get(("dataset", str(url).removeprefix("hf://datasets/")))
        files = (
            []
            if repository is None
            else [
                content for path, content in repository.trees["main"].items() if path.startswith("training")
            ]
        )
        if not files:
            raise Unprocessable("dataset", f"{url} has no training files")
        return sum(bool(line.strip()) for content in files for line in content.splitlines())

    def _cancel(self, job: Entity) -> None:
        if job["status"] in OVER:
            raise Refused(409, f"job {job['id']} is {job['status']}")
        job["_cancelled"] = self.now()
        self._go_on(job)

    def _go_on(self, job: Entity) -> None:
        """Bring a job to where it is by now."""
        if job["status"] in OVER:
            return
        gone = (self.now() - job["_since"]).total_seconds() - self.pace.created - self.pace.pending
        status = "running" if gone >= 0 else "pending" if gone >= -self.pace.pending else "created"
        share = min(1.0, max(0.0, gone / self.pace.running))
        failure = self.failures.get(str(job["name"]))
        if "_cancelled" in job:
            over = self.now() - job["_cancelled"] >= timedelta(seconds=self.pace.cancelling)
            status, share = "cancelled" if over else "cancelling", job.get("_share", share)
        elif failure is not None and share >= 0.5:
            status, share = "failed", 0.5
        elif share >= 1:
            status = "completed"
            self._upload(job)
        self._tell(job, status, share, failure)

    def _tell(self, job: Entity, status: str, share: float, failure: str | None) -> None:
        all_steps, of_epoch = job["_steps"]
        done, moment = int(share * all_steps), self.now().isoformat()
        seen = [step for step in range(1, done + 1) if step in {1, done} or step % 10 == 0]
        values = {
            name: [{"step": step, "value": start / step, "timestamp": moment} for step in seen]
            for name, start in (("train_loss", 4.0), ("val_loss", 5.0))
        }
        logs = [{"updated_at": moment, "message": status, "detail": failure if status == "failed" else None}]
        job["_share"], job["status"], job["updated_at"] = share, status, moment
        job["status_details"] = {
            "created_at": job["created_at"],
            "updated_at": moment,
            "status": status,
            "steps_completed": done,
            "steps_per_epoch": of_epoch,
            "epochs_completed": done // of_epoch,
            "percentage_done": round(100 * share, 1),
            "elapsed_time": max(0.0, (self.now() - job["_since"]).total_seconds()),
            "train_loss": 4.0 / done if done else None,
            "val_loss": 5.0 / done if done else None,
            "metrics": {"keys": ["train_loss", "val_loss"], "metrics": values},
            "status_logs": logs,
        }

    def _upload(self, job: Entity) -> None:
        """The files and the entity of the output model."""
        output = job.get("output_model")
        if output is None:
            return
        namespace, name = _place(output)
        repo, _, version = name.partition("@")
        repository = self.store.repositories.setdefault(("model", f"{namespace}/{repo}"), Repository())
        lora = job["hyperparameters"].get("lora") or {}
        config = {"peft_type": "LORA", "r": lora.get("adapter_dim"), "lora_alpha": lora.get("alpha")}
        files = {
            "adapter_config.json": json.dumps(config).encode(),
            "adapter_model.safetensors": f"weights of {job['name']}".encode(),
        }
        repository.commit(version or "main", files, f"the result of {job['id']}")
        base = job["config"]["target"]
        peft = {"finetuning_type": job["hyperparameters"]["finetuning_type"]}
        self.entities.kinds["models"].held[namespace, name] = {
            "id": f"model-{uuid.uuid4().hex[:22]}",
            "namespace": namespace,
            "name": name,
            "created_at": job["created_at"],
            "updated_at": self.now().isoformat(),
            "base_model": base.get("base_model") or base["name"],
            "peft": peft if peft["finetuning_type"] == "lora" else None,
            "artifact": {"files_url": f"hf://{output}", "status": "upload_completed"},
        }


def _shown(job: Entity) -> Entity:
    return {name: value for name, value in job.items() if not name.startswith("_")}


def _place(urn: str) -> tuple[str, str]:
    namespace, slash, name = urn.partition("/")
    if not slash:
        raise Unprocessable("config", f"{urn} is not namespace/name")
    return namespace, name
