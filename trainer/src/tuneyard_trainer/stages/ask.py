# SPDX-License-Identifier: Apache-2.0
"""Asks an OpenAI-compatible endpoint, as its users will: one prompt, or the prompts of held-out records with scores."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard_api.pod_contract import FailureClass
from tuneyard_data.chat_template import PlainChat
from tuneyard_data.examples import Example
from tuneyard_data.reading import read_records
from tuneyard_data.records import Problems, RecordProblem
from tuneyard_data.templates import renderer_of

from tuneyard_trainer.evaluation.rouge import rouge_l
from tuneyard_trainer.pod.failures import StageFailure, bad_input

_SECONDS = 120.0
_PAUSE_SECONDS = 2.0
_MAX_WORDS = 2000


@dataclass(frozen=True)
class Asked:
    """The scores of a served model."""

    prompts: int
    exact_match: float
    """Share of answers that are the record's, 0 to 1."""
    rouge_l: float
    """Mean ROUGE-L F1, 0 to 1."""

    def content(self) -> str:
        """One line of JSON."""
        return json.dumps({"prompts": self.prompts, "exactMatch": self.exact_match, "rougeL": self.rouge_l})


@dataclass(frozen=True)
class Endpoint:
    """One model of a server, decoded greedily."""

    url: str
    model: str
    max_new_tokens: int
    patience_seconds: float = 0.0
    """How long the first answer may take, for a server that does not know the name yet."""

    def complete(self, prompt: str) -> str:
        """The text that the model adds to a prompt.

        Raises:
            StageFailure: Upstream, with what the server answers instead.
        """
        return str(self._post("completions", {"prompt": prompt})["text"])

    def answer(self, example: Example) -> str:
        """The answer to the prompt of a record; chats go through the server's chat template.

        Raises:
            StageFailure: Upstream, with what the server answers instead.
        """
        if example.messages is None:
            return self.complete(example.prompt or "")
        said = self._post("chat/completions", {"messages": list(example.messages)})
        return str(said["message"]["content"])

    def _post(self, what: str, body: Mapping[str, Any]) -> Any:
        url = f"{self.url.rstrip('/')}/v1/{what}"
        content = {"model": self.model, "max_tokens": self.max_new_tokens, "temperature": 0, **body}
        end = time.monotonic() + self.patience_seconds
        while True:
            try:
                return _choice(url, content)
            except StageFailure:
                if time.monotonic() >= end:
                    raise
                time.sleep(_PAUSE_SECONDS)


def _choice(url: str, content: Mapping[str, Any]) -> Any:
    request = urllib.request.Request(  # noqa: S310  http to a server of the cluster is what is asked
        url, json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_SECONDS) as reply:
            return json.load(reply)["choices"][0]
    except urllib.error.HTTPError as error:
        words = error.read(_MAX_WORDS).decode("utf-8", "replace")
        raise _no_answer(f"{url}: {error.code} {error.reason}: {words}") from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _no_answer(f"{url}: no answer: {error}") from error


def _no_answer(message: str) -> StageFailure:
    return StageFailure(FailureClass.UPSTREAM, message)


def read_prompts(source: Path, most: int) -> list[Example]:
    """The first records of a file that have a prompt.

    Raises:
        StageFailure: BadInput, if there is none.
    """
    problems, found = Problems(), []
    render = None
    for record in read_records(source, source.name, problems):
        try:
            render = render or renderer_of("auto", None, PlainChat(), record)
            example = render(record)
        except RecordProblem as problem:
            problems.add(problem.place, str(problem))
            continue
        if example.prompt is not None or example.messages:
            found.append(example)
        if len(found) == most:
            break
    if not found:
        raise bad_input(
            f"{source}: no record has a prompt; try chat or promptCompletion records\n{problems.report()}"
        )
    return found


def evaluate(endpoint: Endpoint, examples: Iterable[Example]) -> Asked:
    """The scores of the answers of an endpoint, measured as a job measures those of its models.

    Raises:
        StageFailure: Upstream, with what the server answers instead.
    """
    exact, rouge = [], []
    for example in examples:
        answer, reference = endpoint.answer(example).strip(), example.reference.strip()
        exact.append(float(answer == reference))
        rouge.append(rouge_l(reference, answer))
    return Asked(len(exact), sum(exact) / len(exact), sum(rouge) / len(rouge))
