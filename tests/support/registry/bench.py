# SPDX-License-Identifier: Apache-2.0
"""Everything around one adapter-sync: a registry on a claim, the server's folder, and a server that behaves as vLLM does."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneyard_sync.copies import Copies
from tuneyard_sync.servers import Server, VllmServer
from tuneyard_sync.sources import FolderSource, Source
from tuneyard_sync.status import AdapterStatus, Log, SyncStatus
from tuneyard_sync.syncing import Sync

from support.registry.adapters import TINY
from support.registry.vllm_stand_in import VllmStandIn

BASE_MODEL = "/models/tiny"


@dataclass
class Bench:
    """`start` is what a start of the container does; `run` lets two minutes pass before each look."""

    registry: Path
    target: Path
    vllm: VllmStandIn
    now: float = 0.0
    lines: list[str] = field(default_factory=list)
    sync: Sync | None = None

    def start(self, *, server: Server | None = None, source: Source | None = None, **changes: Any) -> Sync:
        settings: dict[str, Any] = {"base": TINY, "interval": 2.0, "keep_seconds": 600.0} | changes
        self.sync = Sync(
            source=source or FolderSource(self.registry),
            copies=Copies(self.target, BASE_MODEL),
            server=server or VllmServer(self.vllm.port),
            clock=lambda: self.now,
            log=Log(self.lines.append),
            **settings,
        )
        self.sync.copies.clean()
        return self.sync

    def run(self, passes: int = 1) -> SyncStatus:
        for _ in range(passes):
            self.now += 120
            status = (self.sync or self.start()).run_once()
        return status

    def of(self, name: str) -> AdapterStatus:
        return next(each for each in self.run().adapters if each.name == name)

    def served(self) -> dict[str, bytes]:
        return {name: weights for name, (_, weights) in self.vllm.loaded.items()}


def make_bench(folder: Path, vllm: VllmStandIn) -> Bench:
    registry = folder / "registry"
    registry.mkdir(parents=True)
    vllm.restart()
    return Bench(registry, folder / "adapters", vllm)
