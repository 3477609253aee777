# SPDX-License-Identifier: Apache-2.0
"""A client of MLflow's REST API 2.0: the few calls that a record needs, each of which can be made twice.

MLflow gives a run its id, and would make a second one when it is asked twice. So a run is known by its tags, and is looked
for before it is made. What a run has already is not sent again.
"""

import http.client
import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import quote, urlencode

from tuneyard_api.pod_contract import FailureClass
from tuneyard_api.problems import clip

from tuneyard_trainer.fetch.certificates import untrusted
from tuneyard_trainer.pod.failures import StageFailure, bad_input

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
Point = tuple[str, float, int, int]
"""Name of a metric, value, time in milliseconds since 1970, optimizer step."""
MOST_METRICS, _MOST_OTHERS = 1000, 100
"""Most metrics, and most parameters or tags, in one call: MLflow's limits."""
_MAX_VALUE = 5000
"""Longest parameter and tag, in characters; MLflow refuses those of more than 6000 and 8000."""
_MAX_ANSWER_BYTES = 16 << 20
_BUSY = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


class Refused(StageFailure):
    """MLflow does not do what it is asked; `code` is its own word for why."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(FailureClass.BAD_INPUT, message)
        self.code = code


@dataclass
class Run:
    """A run as the server has it, as far as it is known here."""

    id: str
    status: str
    params: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)
    latest: dict[str, int] = field(default_factory=dict)
    """Last step of each metric."""


class Mlflow:
    """One server."""

    def __init__(self, url: str, timeout_seconds: float, *, total_seconds: float = math.inf) -> None:
        """No call is begun after the total."""
        self.url = url.rstrip("/")
        self._timeout = timeout_seconds
        self._end = time.monotonic() + total_seconds
        self._total = total_seconds

    def experiment(self, name: str) -> str:
        """The id of an experiment, which is made if it is not there.

        Raises:
            StageFailure: UpstreamUnavailable, or BadInput with what MLflow says.
        """
        try:
            found = self._ask(f"experiments/get-by-name?{urlencode({'experiment_name': name})}")
        except Refused as refusal:
            if refusal.code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return self._new_experiment(name)
        if found["experiment"].get("lifecycle_stage") == "deleted":
            raise bad_input(f"experiment {name} of MLflow at {self.url} is deleted; try to restore it there")
        return str(found["experiment"]["experiment_id"])

    def run(self, experiment: str, name: str, started: int, key: Mapping[str, str]) -> Run:
        """The run whose tags have the key; it is made if it is not there.

        Raises:
            StageFailure: as `experiment`.
        """
        wanted = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in key.items())
        question = {"experiment_ids": [experiment], "filter": wanted, "max_results": 1}
        found = self._ask("runs/search", question | {"order_by": ["attributes.start_time ASC"]}).get("runs")
        if found:
            return _known(found[0])
        made = self._ask(
            "runs/create",
            {"experiment_id": experiment, "run_name": name, "start_time": started, "tags": _pairs(key)},
        )
        return _known(made["run"])

    def write(
        self,
        run: Run,
        *,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        points: Iterable[Point] = (),
    ) -> None:
        """Adds what the run does not have yet; points are in the order of their steps.

        Raises:
            StageFailure: as `experiment`.
        """
        new_params = {key: value for key, value in (params or {}).items() if key not in run.params}
        new_tags = {key: value for key, value in (tags or {}).items() if run.tags.get(key) != value}
        for part in _parts(list(new_params), _MOST_OTHERS):
            self._log(run, params=_pairs({key: new_params[key] for key in part}))
            run.params.update(part)
        for part in _parts(list(new_tags), _MOST_OTHERS):
            self._log(run, tags=_pairs({key: new_tags[key] for key in part}))
            run.tags.update({key: new_tags[key] for key in part})
        new = [
            point for point in points if math.isfinite(point[1]) and point[3] > run.latest.get(point[0], -1)
        ]
        for chunk in _parts(new, MOST_METRICS):
            metrics = [
                {"key": key, "value": value, "timestamp": moment, "step": step}
                for key, value, moment, step in chunk
            ]
            self._log(run, metrics=metrics)
            run.latest.update({key: step for key, _, _, step in chunk})

    def end(self, run: Run, status: Status, moment: int | None = None) -> None:
        """Lets the run have a status; RUNNING opens it again.

        Raises:
            StageFailure: as `experiment`.
        """
        if run.status != status:
            ended = {} if moment is None else {"end_time": moment}
            self._ask("runs/update", {"run_id": run.id, "status": status, **ended})
            run.status = status

    def address(self, experiment: str, run: Run) -> str:
        """The page of a run, for a browser."""
        return f"{self.url}/#/experiments/{quote(experiment)}/runs/{quote(run.id)}"

    def _new_experiment(self, name: str) -> str:
        try:
            return str(self._ask("experiments/create", {"name": name})["experiment_id"])
        except Refused as refusal:
            if refusal.code != "RESOURCE_ALREADY_EXISTS":
                raise
            # Another job has just made it.
            return self.experiment(name)

    def _log(self, run: Run, **content: Sequence[Mapping[str, Any]]) -> None:
        self._ask("runs/log-batch", {"run_id": run.id, **content})

    def _ask(self, page: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer of the API; with a body it is a POST."""
        name = f"MLflow at {self.url}"
        if time.monotonic() > self._end:
            raise bad_input(f"{name} is too slow: not all was written within {self._total:g} s")
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        url = f"{self.url}/api/2.0/mlflow/{page}"
        request = urllib.request.Request(url, content, headers)  # noqa: S310  the contract allows http and https alone
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:  # noqa: S310  the same
                said: Any = json.loads(answer.read(_MAX_ANSWER_BYTES))
        except urllib.error.HTTPError as error:
            raise _refusal(name, error) from error
        except (OSError, http.client.HTTPException) as error:
            failure = untrusted(name, error)
            raise failure or StageFailure(
                FailureClass.UPSTREAM, f"{name} does not answer: {clip(str(error), 300)}"
            ) from error
        except ValueError as error:
            raise bad_input(f"{name} does not answer in JSON: is there another server?") from error
        if not isinstance(said, dict):
            raise bad_input(f"{name} answers with no object: is there another server?")
        return said


def _refusal(name: str, error: urllib.error.HTTPError) -> StageFailure:
    try:
        content = error.read(_MAX_ANSWER_BYTES)
    except (OSError, http.client.HTTPException):
        content = b""
    try:
        answer = json.loads(content)
        code, message = str(answer["error_code"]), str(answer.get("message", ""))
    except (ValueError, KeyError, TypeError):
        code, message = "", content.decode(errors="replace")
    said = clip(f"{name} answers {error.code} {code}: {' '.join(message.split())}", 500)
    if error.code in _BUSY or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return StageFailure(FailureClass.UPSTREAM, said)
    return Refused(said, code)


def _known(run: Mapping[str, Any]) -> Run:
    info, data = run["info"], run.get("data") or {}
    return Run(
        id=str(info["run_id"]),
        status=str(info.get("status", "RUNNING")),
        params={each["key"] for each in data.get("params") or ()},
        tags={each["key"]: each["value"] for each in data.get("tags") or ()},
        latest={each["key"]: int(each.get("step") or 0) for each in data.get("metrics") or ()},
    )


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": clip(value, _MAX_VALUE)} for key, value in values.items()]


def _parts(values: Sequence[Any], size: int) -> Iterable[Any]:
    return (values[at : at + size] for at in range(0, len(values), size))
