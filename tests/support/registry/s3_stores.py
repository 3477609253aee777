# SPDX-License-Identifier: Apache-2.0
"""Stores that speak S3: moto, which stands in for one and checks signatures, and versitygw, a real one, where it is built."""

import contextlib
import random
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from tuneyard_local.network import pick_ports
from tuneyard_local.parts import program

BUCKET = "adapters"
_START_SECONDS = 180


@dataclass
class Store:
    """A store with one bucket."""

    endpoint: str
    credentials: Mapping[str, str]
    """Environment variables of whoever may do everything."""
    process: "subprocess.Popen[bytes]"

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.credentials["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.credentials["AWS_SECRET_ACCESS_KEY"],
            config=Config(s3={"addressing_style": "path"}),
        )

    def upload(self, folder: Path, prefix: str) -> None:
        """Every file below a folder, by its path."""
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                self.client().put_object(
                    Bucket=BUCKET, Key=f"{prefix}{path.relative_to(folder)}", Body=path.read_bytes()
                )


@contextlib.contextmanager
def moto_store(actions_before_login: int = 1) -> Iterator[Store]:
    """Moto in a process; after so many calls, which anybody may make, it wants credentials that IAM knows."""
    port = pick_ports(["moto"], random.SystemRandom())["moto"]
    environment = {"PATH": "/usr/bin", "HOME": "/nonexistent"}
    environment["INITIAL_NO_AUTH_ACTION_COUNT"] = str(actions_before_login + 3)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, environment, f"http://127.0.0.1:{port}", "/moto-api/data.json") as process:
        endpoint = f"http://127.0.0.1:{port}"
        setup = {"AWS_ACCESS_KEY_ID": "setup", "AWS_SECRET_ACCESS_KEY": "setup"}
        store = Store(endpoint, setup, process)
        iam = boto3.client(
            "iam",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="setup",
            aws_secret_access_key="setup",
        )
        iam.create_user(UserName="owner")
        policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'
        iam.put_user_policy(UserName="owner", PolicyName="all", PolicyDocument=policy)
        key = iam.create_access_key(UserName="owner")["AccessKey"]
        store.credentials = {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }
        store.client().create_bucket(Bucket=BUCKET)
        yield store


@contextlib.contextmanager
def versity_store(folder: Path, host: str = "127.0.0.1", accounts: Path | None = None) -> Iterator[Store]:
    """Versitygw on a folder, as the local cluster builds it; it answers at an address of this machine.

    With a folder for `accounts` it has users beside its owner.
    """
    port = pick_ports(["versitygw"], random.SystemRandom())["versitygw"]
    endpoint = f"http://{host}:{port}"
    credentials = {"AWS_ACCESS_KEY_ID": "owner", "AWS_SECRET_ACCESS_KEY": "owners-secret"}
    for name in ("data", "metadata"):
        (folder / name).mkdir(parents=True)
    environment = {"ROOT_ACCESS_KEY": "owner", "ROOT_SECRET_KEY": "owners-secret", "PATH": "/usr/bin"}
    if accounts:
        environment["VGW_IAM_DIR"] = str(accounts)
    command = [str(program("versitygw")), "--port", f"{host}:{port}", "--health", "/health"]
    # Metadata in files: not every temporary folder has extended attributes, and conditions need it.
    command += ["posix", "--sidecar", str(folder / "metadata"), str(folder / "data")]
    with _running(command, environment, endpoint, "/health") as process:
        store = Store(endpoint, credentials, process)
        store.client().create_bucket(Bucket=BUCKET)
        yield store


@contextlib.contextmanager
def _running(
    command: list[str], environment: Mapping[str, str], endpoint: str, path: str
) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        command, env=dict(environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + _START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(endpoint + path, timeout=5):
                    break
            except (OSError, urllib.error.URLError):
                assert process.poll() is None, f"{command[0]} has ended"
                assert time.monotonic() < until, f"{command[0]} does not answer"
                time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait(120)
