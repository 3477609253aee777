# SPDX-License-Identifier: Apache-2.0
"""A real API server: nobody changes who manages a job, and our events are events.k8s.io/v1."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from support.samples import job_spec, observed
from tuneyard_api import names
from tuneyard_local.cluster import Cluster
from tuneyard_local.installation import install_kinds
from tuneyard_operator.domain.decision import Note
from tuneyard_operator.domain.objects.event import build_event

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def server(control_plane: Cluster) -> Cluster:
    """The API server with our kinds."""
    install_kinds(control_plane)
    return control_plane


@pytest.mark.parametrize("manager", [{}, {"managedBy": "example.com/other"}], ids=["ours", "another's"])
def test_who_manages_a_job_can_not_be_changed(
    server: Cluster, namespace: str, manager: dict[str, str]
) -> None:
    metadata = {"name": "a", "namespace": namespace}
    kind = {"apiVersion": names.API_VERSION, "kind": names.JOB_KIND}
    server.apply({**kind, "metadata": metadata, "spec": job_spec(**manager)})

    def patch(change: str) -> tuple[int, str]:
        done = server.kubectl("patch", "ftj", "a", "-n", namespace, "--type=merge", "-p", change)
        return done.returncode, done.stderr

    for value in ('"example.com/third"', "null"):
        code, message = patch('{"spec":{"managedBy":%s}}' % value)  # noqa: UP031  braces of JSON
        changes = bool(manager) or value != "null"
        assert (code != 0, "managedBy may not be changed" in message) == (changes, changes)
    assert patch('{"spec":{"suspend":true}}')[0] == 0, "other fields may change"


def test_our_events_are_taken_as_events_v1(server: Cluster, namespace: str) -> None:
    seen = replace(observed(), namespace=namespace)
    event = build_event(seen, Note("Warning", "BadInput", "é" * 1000), datetime.now(UTC))
    made = server.kubectl("create", "--validate=strict", "-f", "-", stdin=json.dumps(event))
    assert (made.returncode, made.stderr) == (0, "")
    shown = server.kubectl("get", "events", "-n", namespace, "-o", "wide").stdout
    assert "BadInput" in shown
    assert "finetunejob/a" in shown, "kubectl shows it with those of others"
