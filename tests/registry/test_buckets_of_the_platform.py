# SPDX-License-Identifier: Apache-2.0
"""The Job that makes buckets and users, run as it is rendered against the real versitygw with the chart's settings."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.registry.s3_stores import Store, versity_store
from tuneyard.catalog import catalog, pins
from tuneyard.environment.model import Environment
from tuneyard.stack.model import Json
from tuneyard.stack.resolve import resolve
from tuneyard_local.parts import build_parts, program
from tuneyard_local.progress import Progress

pytestmark = pytest.mark.cluster
FIRST, SECOND = "t-mlflow", "t-nemo-data-store"


def job() -> Json:
    environment = Environment.model_validate(
        {
            "name": "t",
            "preset": "nemo-microservices",
            "argocd": {"repoUrl": "https://git.example.com/g.git"},
            "storage": {"readWriteOnce": {"className": "block"}},
        }
    )
    component = resolve(environment, catalog(environment), pins()).component("versitygw")
    assert component
    assert component.objects
    (found,) = component.objects(resolve(environment, catalog(environment), pins()))
    return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Store]:
    build_parts(["versitygw"], Progress())
    (tmp_path / "iam").mkdir()
    with versity_store(tmp_path / "store", accounts=tmp_path / "iam") as store:
        yield store


def run(store: Store, secret: str) -> "subprocess.CompletedProcess[str]":
    """The container's command with its variables; each service's password is `<secret><its number>`."""
    (container,) = job()["spec"]["template"]["spec"]["containers"]
    folder = program("versitygw").parent
    variables = {"PATH": f"{folder}{os.pathsep}/usr/bin:/bin"}
    for entry in container["env"]:
        name = entry["name"]
        variables[name] = secret + name.removeprefix("SECRET_") if name.startswith("SECRET_") else ""
    variables |= {
        "ADMIN_ENDPOINT_URL": store.endpoint,
        "ADMIN_ACCESS_KEY_ID": store.credentials["AWS_ACCESS_KEY_ID"],
        "ADMIN_SECRET_ACCESS_KEY": store.credentials["AWS_SECRET_ACCESS_KEY"],
    }
    return subprocess.run(
        container["command"], env=variables, capture_output=True, text=True, check=False, timeout=120
    )


def client(store: Store, user: str, secret: str) -> Any:
    access = {"AWS_ACCESS_KEY_ID": user, "AWS_SECRET_ACCESS_KEY": secret}
    return Store(store.endpoint, access, store.process).client()


def refused(call: Any, **arguments: str) -> bool:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"] in ("AccessDenied", "SignatureDoesNotMatch")


def test_each_service_has_its_bucket_and_no_other(server: Store) -> None:
    done = run(server, "first-password-")
    assert done.returncode == 0, done.stderr
    first = client(server, "mlflow", "first-password-0")
    second = client(server, "nemo-data-store", "first-password-1")
    first.put_object(Bucket=FIRST, Key="a", Body=b"1")
    second.put_object(Bucket=SECOND, Key="b", Body=b"2")
    assert refused(first.get_object, Bucket=SECOND, Key="b")
    assert refused(first.put_object, Bucket=SECOND, Key="b", Body="3")
    assert refused(first.list_objects_v2, Bucket=SECOND)
    assert refused(second.delete_object, Bucket=FIRST, Key="a")
    assert refused(first.create_bucket, Bucket="another")


def test_a_second_run_keeps_objects_and_takes_new_passwords(server: Store) -> None:
    assert run(server, "first-password-").returncode == 0
    client(server, "mlflow", "first-password-0").put_object(Bucket=FIRST, Key="a", Body=b"1")
    done = run(server, "second-password-")
    assert done.returncode == 0, done.stderr
    got = client(server, "mlflow", "second-password-0").get_object(Bucket=FIRST, Key="a")
    assert got["Body"].read() == b"1"
    assert refused(client(server, "mlflow", "first-password-0").get_object, Bucket=FIRST, Key="a")


def test_a_bucket_of_somebody_else_is_given_to_its_service(server: Store) -> None:
    server.client().create_bucket(Bucket=FIRST)
    assert run(server, "password-").returncode == 0
    client(server, "mlflow", "password-0").put_object(Bucket=FIRST, Key="a", Body=b"1")
