# SPDX-License-Identifier: Apache-2.0
"""MLflow answers those who ask it here, and nobody's name that merely resolves to it (DNS rebinding)."""

import re
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from tuneyard.catalog import pins
from tuneyard.pipeline import build
from tuneyard_api.yaml_io import load

ROOT = Path(__file__).parents[2]


def hosts() -> list[str]:
    values = next(
        load(file.text).value
        for file in build(ROOT / "environments/open.yaml", ROOT).files
        if file.path == "manifests/open/mlflow/values.yaml"
    )
    return str(values["extraEnvVars"]["MLFLOW_SERVER_ALLOWED_HOSTS"]).split(",")


def is_answered(host: str) -> bool:
    """`is_allowed_host_header` of MLflow 3.15.1; 3.18.0 also asks whether `10.*` and the like met an address."""
    return any(fnmatchcase(host, known) if "*" in known else host == known for known in hosts())


@pytest.mark.parametrize(
    "host",
    [
        "mlflow.mlflow.svc.cluster.local:5000", "mlflow.mlflow.svc:5000", "mlflow.mlflow:5000", "mlflow:5000",
        "mlflow.mlflow.svc.cluster.local", "mlflow.mlflow.svc", "mlflow.mlflow", "mlflow",
        "10.0.0.7:5000", "10.244.1.200:5000", "172.31.0.1:5000", "192.168.0.9:5000", "100.64.3.9:5000", "[fd00::7]:5000",
        "localhost:8080", "127.0.0.1:5000",
    ],
)  # fmt: skip
def test_who_asks_from_here_is_answered(host: str) -> None:
    assert is_answered(host)


@pytest.mark.parametrize(
    "host",
    [
        "example.com:5000", "10.example.com:5000", "10.0.0.7.example.com:5000", "10.0.0.7:80",
        "localhost.example.com:5000", "mlflow.example.com", "mlflow.mlflow.svc.cluster.local.example.com:5000",
    ],
)  # fmt: skip
def test_another_s_name_is_not(host: str) -> None:
    assert not is_answered(host)


def test_no_pattern_is_one_of_the_kind_that_mlflow_reads_otherwise() -> None:
    shaped = re.compile(r"(?:[0-9]+\.)+\*(?:\.(?:[0-9]+|\*))*(?::[0-9*]+)?")
    assert not [host for host in hosts() if shaped.fullmatch(host)]


def test_the_server_of_the_tests_is_of_the_version_that_the_chart_deploys() -> None:
    project = tomllib.loads((ROOT / "local/mlflow/pyproject.toml").read_text())["project"]
    deployed = [image for image in pins()["mlflow"].deploys if "/mlflow:" in image]
    assert [f"mlflow=={image.rpartition(':')[2]}" for image in deployed] == project["dependencies"]
