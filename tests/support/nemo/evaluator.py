# SPDX-License-Identifier: Apache-2.0
"""Evaluator, as far as the lab's pipeline uses it: targets, configs, jobs that end by the clock, and their results."""

import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from support.nemo.entities import Entities, Entity, checked, page
from support.nemo.wire import Refused, Reply, Request, reply

LASTS = timedelta(seconds=3)


class Evaluator:
    """The service. `scores` are what every task's metrics get."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.scores: Mapping[str, float] = {"rouge_l_score": 0.5}
        self.targets = Entities("eval-target", now, {"type": str})
        self.configs = Entities("eval-config", now, {"type": str})
        self.jobs: dict[str, Entity] = {}

    def serve(self, request: Request, parts: list[str]) -> Reply:
        kind, rest = parts[0], parts[1:]
        if kind in {"targets", "configs"}:
            return {"targets": self.targets, "configs": self.configs}[kind].serve(request, rest)
        if kind != "jobs":
            raise Refused(404, f"no such route: {request.path}")
        if not rest:
            is_new = request.method == "POST"
            return (
                reply(self._create(request.json()), 201)
                if is_new
                else reply(page(self.jobs.values(), request.query))
            )
        job = self.jobs.get(rest[0])
        if job is None:
            raise Refused(404, f"job {rest[0]} does not exist")
        self._go_on(job)
        if rest[1:] in (["status"], ["results"]):
            return reply(job["status_details"] if rest[1] == "status" else self._results(job))
        if request.method == "DELETE":
            del self.jobs[rest[0]]
            return reply({"id": rest[0], "message": "deleted"})
        return reply(job)

    def _create(self, body: Any) -> Entity:
        checked(body, {})
        job_id, moment = f"eval-{uuid.uuid4().hex[:22]}", self.now().isoformat()
        resolved = {
            name: held.get(tuple(body[name].split("/", 1)))
            if isinstance(body.get(name), str)
            else body.get(name)
            for name, held in (("config", self.configs), ("target", self.targets))
        }
        for name, value in resolved.items():
            checked({name: value}, {name: dict})
        self.jobs[job_id] = {
            **body,
            **resolved,
            "id": job_id,
            "namespace": body.get("namespace") or "default",
            "status": "running",
            "status_details": {"progress": 0.0},
            "created_at": moment,
            "updated_at": moment,
        }
        return self.jobs[job_id]

    def _go_on(self, job: Entity) -> None:
        if self.now() - datetime.fromisoformat(job["created_at"]) >= LASTS:
            job.update(status="completed", status_details={"progress": 100.0})

    def _results(self, job: Entity) -> Entity:
        if job["status"] != "completed":
            raise Refused(404, f"job {job['id']} has no results yet")
        scores = {name: {"value": value} for name, value in self.scores.items()}
        tasks = {
            name: {
                "metrics": {metric: {"scores": scores} for metric in (task.get("metrics") or {"score": {}})}
            }
            for name, task in (job["config"].get("tasks") or {}).items()
        }
        return {"job": job["id"], "id": f"result-{job['id']}", "namespace": job["namespace"], "tasks": tasks}
