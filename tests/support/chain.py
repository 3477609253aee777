# SPDX-License-Identifier: Apache-2.0
"""The way from the publish stage's writer by adapter-sync to a server: the real programs, told what the rendered trees tell them.

The writer has the registry of the rendered FineTuneRuntime, adapter-sync the variables of the rendered container beside
vLLM. Only addresses, folders and the server's model are those of a test.
"""

import json
import os
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from tuneyard_api.places import S3Prefix, S3Registry
from tuneyard_api.registry import STORE, Question, StoredBase, Trial, Version, published_digest
from tuneyard_api.yaml_io import load
from tuneyard_local.network import pick_ports
from tuneyard_local.paths import REPOSITORY
from tuneyard_trainer.registry.bucket import BucketRegistry
from tuneyard_trainer.registry.claim import ClaimRegistry
from tuneyard_trainer.registry.content import Content

from support.adapter_servers import AdapterServer
from support.registry.s3_stores import BUCKET, Store
from support.tiny_adapters import write_adapter

WAIT_SECONDS = 180
COMMAND = [sys.executable, "-c", "from tuneyard_sync.main import main; main()"]
MODEL = "qwen-2-5-7b"
"""The model that `open` and `airgapped` serve by vLLM."""


def rendered_variables(environment: str, secret: Mapping[str, str]) -> dict[str, str]:
    """The variables of the container beside vLLM in a committed tree; `secret` is the content of the Secret that it names."""
    (path,) = (REPOSITORY / f"manifests/{environment}/model-{MODEL}").glob("deployment-*.yaml")
    containers = load(path.read_text()).value["spec"]["template"]["spec"]["containers"]
    (sync,) = (each for each in containers if each["name"] == "adapter-sync")
    variables: dict[str, str] = {}
    for entry in sync["env"]:
        chosen = entry.get("valueFrom", {}).get("secretKeyRef", {})
        value = entry.get("value", secret.get(chosen.get("key")))
        assert value is not None or chosen["optional"]
        variables |= {entry["name"]: value} if value is not None else {}
    return variables


def rendered_place(store: Store) -> S3Prefix:
    """The registry in S3 that the rendered runtime of `airgapped` gives its jobs, at the address of a store here."""
    path = REPOSITORY / "manifests/airgapped/fine-tuning/finetuneruntime-hf.yaml"
    rendered = S3Registry.model_validate(load(path.read_text()).value["spec"]["defaults"]["registryS3"])
    assert rendered.bucket == BUCKET
    return S3Prefix(bucket=BUCKET, prefix=rendered.prefix, endpoint=store.endpoint)


@dataclass(frozen=True)
class Chain:
    """A registry with its writer, and adapter-sync beside a server."""

    registry: ClaimRegistry | BucketRegistry
    variables: Mapping[str, str]
    """Those of adapter-sync."""
    server: AdapterServer
    folder: Path
    store: Store | None = None
    """Where the registry is, if not in a folder."""
    port: int = field(default_factory=lambda: pick_ports(["status"], random.SystemRandom())["status"])
    """Port of adapter-sync's own answers."""

    @classmethod
    def on_claim(cls, server: AdapterServer, folder: Path) -> Self:
        """The chain as `open` has it."""
        registry = ClaimRegistry(folder / "registry")
        registry.root.mkdir()
        here = {"TUNEYARD_SYNC_SOURCE_DIR": str(registry.root)}
        return cls(registry, rendered_variables("open", {}) | here, server, folder)

    @classmethod
    def in_s3(cls, server: AdapterServer, folder: Path, store: Store) -> Self:
        """The chain as `airgapped` has it."""
        registry = BucketRegistry.of(rendered_place(store), store.credentials, folder)
        here = {"TUNEYARD_SYNC_S3_ENDPOINT": store.endpoint, "TUNEYARD_SYNC_S3_REGION": "us-east-1"}
        variables = rendered_variables("airgapped", store.credentials) | here
        return cls(registry, variables, server, folder, store)

    @property
    def target(self) -> Path:
        return self.folder / "beside-the-server"

    @property
    def base(self) -> StoredBase:
        """The base model of the rendered server."""
        told = {key: self.variables[f"TUNEYARD_SYNC_BASE_{key}"] for key in ("REPO", "REVISION")}
        return StoredBase(repo=told["REPO"], revision=told["REVISION"], commit="c0ffee")

    def with_credentials(self, **changes: str) -> Self:
        """The same where adapter-sync has other credentials."""
        return replace(self, variables={**self.variables, **changes})

    def publish(
        self, name: str, seed: int, answer: str | None = None, *, is_replacing: bool = True
    ) -> Version:
        """A version of its own weights; `answer`: what the evaluation is said to have seen of it."""
        files = self.folder / f"trained-{name}-{seed}"
        if not files.exists():
            write_adapter(files, seed, base_model_name_or_path=self.base.repo, revision=self.base.commit)
        trial = answer and Trial(questions=(Question(prompt="the quick", answer=answer),), max_new_tokens=12)
        version = Version(
            name=name, digest=published_digest(files), base=self.base, method="lora", trial=trial or None
        )
        content = Content(files, lambda _: None)
        self.registry.publish(version, content, f"job-{seed}", replace=is_replacing)
        return version

    def stored(self, version: Version, name: str) -> bytes:
        """A file of a version as the registry has it."""
        if self.store is None:
            return (self.registry_folder / version.path / name).read_bytes()
        answer = self.store.client().get_object(Bucket=BUCKET, Key=self._key(version, name))
        return bytes(answer["Body"].read())

    def put(self, version: Version, name: str, content: bytes) -> None:
        """Puts other content into a file of a version, as nobody should."""
        if self.store is None:
            (self.registry_folder / version.path / name).write_bytes(content)
        else:
            self.store.client().put_object(Bucket=BUCKET, Key=self._key(version, name), Body=content)

    @property
    def registry_folder(self) -> Path:
        assert isinstance(self.registry, ClaimRegistry)
        return self.registry.root

    def _key(self, version: Version, name: str) -> str:
        assert isinstance(self.registry, BucketRegistry)
        return f"{self.registry.place.prefix}/{version.path}/{name}"

    def right(self, name: str, seed: int) -> str:
        """What the server answers with these weights, loaded by their path under another name."""
        expected = f"expected-{name}-{seed}"
        folder = self.folder / expected
        if not folder.exists():
            write_adapter(folder, seed, base_model_name_or_path=self.server.model)
            assert self.server.load(expected, folder)[0] == 200
        return self.server.text(expected)

    @contextmanager
    def syncing(self) -> Iterator["subprocess.Popen[bytes]"]:
        """Adapter-sync runs."""
        here = {
            "TARGET_DIR": str(self.target),
            "BASE_MODEL": self.server.model,
            "SERVER_PORT": self.server.url.rpartition(":")[2],
            "INTERVAL_SECONDS": "0.1",
            "STATUS_PORT": str(self.port),
        }
        variables = dict(self.variables) | {f"TUNEYARD_SYNC_{key}": value for key, value in here.items()}
        process = subprocess.Popen(COMMAND, env={"PATH": os.environ["PATH"]} | variables)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def told(self) -> dict[str, Any]:
        """What adapter-sync answers to GET /adapters; nothing while it starts."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.port}/adapters", timeout=30) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except OSError:
            return {}

    def wait_for_words(self, words: str, name: str | None = None, field: str = "problem") -> None:
        """Waits until adapter-sync says these words of a name, which answers all the while, or of the registry."""
        until = time.monotonic() + WAIT_SECONDS
        while True:
            told = self.told()
            rows = {each["name"]: each.get(field) for each in told.get("adapters", ())}
            said = told.get("registryProblem") if name is None else rows.get(name)
            if words in (said or ""):
                return
            assert name is None or self.server.complete(name)[0] == 200
            assert time.monotonic() < until, told
            time.sleep(0.05)

    def wait_until_gone(self, name: str) -> None:
        """Waits until the server has no such name: between two trials it must not."""
        until = time.monotonic() + WAIT_SECONDS
        while name in self.server.listed():
            assert time.monotonic() < until, "what was tried stays"
            time.sleep(0.05)

    def wait_for(self, name: str, text: str, *others: str) -> None:
        """Waits until the server answers so; until then it has no such adapter, or answers as one of `others`.

        Real vLLM answers the one request during which the name moves by the weights of both versions.
        """
        until, torn = time.monotonic() + WAIT_SECONDS, 0
        while True:
            status, answer = self.server.complete(name)
            found = answer["choices"][0]["text"] if status == 200 else None
            if found == text:
                return
            torn += found not in {None, *others}
            assert torn <= (self.server.kind == "vllm" and bool(others)), (
                "neither the version before nor the new one"
            )
            assert (found is not None) == bool(others), "a name that was served is never gone"
            assert time.monotonic() < until, answer
            time.sleep(0.05)

    def versions_beside(self, name: str) -> set[str]:
        """The digests of a name that are in the server's folder."""
        return {path.name for path in (self.target / STORE / name).glob("[!.]*")}
