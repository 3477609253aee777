# SPDX-License-Identifier: Apache-2.0
"""Events are those of events.k8s.io/v1 with a bounded note; and a job of another controller is left alone."""

import pytest
from support.samples import NOW, job_spec, observed
from support.world.world import World
from tuneyard_api import names
from tuneyard_api.job import FineTuneJobSpec
from tuneyard_api.status import State
from tuneyard_operator.domain.decision import Note
from tuneyard_operator.domain.objects.event import build_event


def test_an_event_names_the_job_the_controller_and_what_it_did() -> None:
    event = build_event(observed(), Note("Warning", "BadInput", "line 3"), NOW)
    assert (event["apiVersion"], event["note"], event["type"]) == ("events.k8s.io/v1", "line 3", "Warning")
    assert event["regarding"]["name"] == "a"
    assert event["reportingController"] == "tuneyard.io/operator"
    assert all(event[name] for name in ("action", "reason", "reportingInstance", "eventTime"))
    assert not {"source", "count", "firstTimestamp", "lastTimestamp"} & event.keys(), (
        "fields of the former API"
    )


@pytest.mark.parametrize("text", ["x" * 3000, "é" * 1000, "x" + "é" * 1000])
def test_a_note_is_cut_by_bytes_as_the_api_server_counts_them(text: str) -> None:
    note = build_event(observed(), Note("Normal", "R", text), NOW)["note"]
    assert len(note.encode()) <= 1024
    assert note.endswith("…")
    assert text.startswith(note[:-1])


def test_a_job_of_another_controller_is_left_alone() -> None:
    world = World(spec=job_spec(managedBy="example.com/other"))
    world.settle()
    assert (world.jobs(), world.status.state, world.status.conditions) == ([], State.PENDING, ())
    assert world.cluster.events == []


def test_a_job_that_names_this_operator_is_its_own() -> None:
    world = World(spec=job_spec(managedBy=names.CONTROLLER))
    world.settle()
    assert world.jobs() == ["a-prepare-1"]


@pytest.mark.parametrize("wrong", ["other", "example.com/", "/x", "Example.com/x", "a/" + "x" * 70])
def test_a_manager_is_a_name_with_a_domain(wrong: str) -> None:
    with pytest.raises(ValueError, match="managedBy"):
        FineTuneJobSpec.model_validate(job_spec(managedBy=wrong))
