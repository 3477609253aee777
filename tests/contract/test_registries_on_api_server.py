# SPDX-License-Identifier: Apache-2.0
"""A real API server refuses of each job what the runtime's registry in S3 or a Data Store can't do."""

import time
from typing import Any

import pytest
from tuneyard_api.yaml_io import dump
from tuneyard_local.cluster import Cluster
from tuneyard_local.installation import install_kinds

pytestmark = pytest.mark.cluster

STORE = {"bucket": "adapters", "secretRef": {"name": "store"}}
SPEC: dict[str, Any] = {
    "model": {"pvc": {"claimName": "models"}},
    "dataset": {"training": {"pvc": {"claimName": "data", "path": "t.jsonl"}}},
    "method": "lora",
}
PUBLISHED = {"model": {"pvc": {"claimName": "models"}, "adapter": {"published": "first"}}}
OWN = {"publish": {"pvc": {"claimName": "own"}}}


def create(server: Cluster, namespace: str, runtime: str, **spec: Any) -> str:
    """What kubectl says of a job on this runtime; empty: it is accepted."""
    body = {
        "apiVersion": "tuneyard.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "answers"},
        "spec": {**SPEC, "runtime": {"name": runtime}, **spec},
    }
    options = ("--validate=strict", "--dry-run=server", "-n", namespace, "-f", "-")
    return server.kubectl("create", *options, stdin=dump(body)).stderr


def test_what_a_registry_elsewhere_can_not_do_is_refused_with_words(
    control_plane: Cluster, namespace: str
) -> None:
    install_kinds(control_plane)
    for name, defaults in (
        ("in-s3", {"registryS3": STORE}),
        ("in-data-store", {"registryDataStore": {"endpoint": "http://d", "entityStore": "http://e"}}),
        ("on-a-claim", {"registry": {"claimName": "a"}}),
    ):
        spec = {"image": "trainer:1", "accelerator": "nvidia", "methods": ["lora"], "defaults": defaults}
        body = {"apiVersion": "tuneyard.io/v1alpha1", "kind": "FineTuneRuntime", "metadata": {"name": name}}
        applied = control_plane.kubectl("apply", "-f", "-", stdin=dump({**body, "spec": spec}))
        assert applied.returncode == 0, applied.stderr
    for name in ("in-s3", "in-data-store"):
        delete = (
            "spec.deletionPolicy: an adapter in S3 or a Data Store is not removed with its job, and the registry of runtime"
            f" {name} is there (got Delete); try Retain, or publish.pvc"
        )
        until = time.monotonic() + 90
        while delete not in create(control_plane, namespace, name, deletionPolicy="Delete"):
            assert time.monotonic() < until, "the policy is not in force"
            time.sleep(0.2)
        assert (
            "spec.model.adapter.published: a published adapter is read from a registry on a claim alone, and the registry of"
            f" runtime {name} is on none (got first); try model.adapter.pvc with a copy of it"
        ) in create(control_plane, namespace, name, **PUBLISHED)
        assert not create(control_plane, namespace, name)
    for spec in ({"deletionPolicy": "Delete"}, PUBLISHED):
        for name in ("in-s3", "in-data-store"):
            assert not create(control_plane, namespace, name, **spec, **OWN)
        assert not create(control_plane, namespace, "on-a-claim", **spec)
