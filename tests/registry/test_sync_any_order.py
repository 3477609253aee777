# SPDX-License-Identifier: Apache-2.0
"""Whatever happens in whatever order: no server ever sees a part, and once all is well the server has what the registry says."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from support.registry.adapters import TINY, publish
from support.registry.bench import Bench, make_bench
from support.registry.kills import killed_before
from support.registry.vllm_stand_in import VllmStandIn, running
from tuneyard_api.pod_contract import ADAPTER_FILES
from tuneyard_api.registry import StoredBase, linked_digest, version_path

WEIGHTS = ADAPTER_FILES[1]
NAMES = ("a", "b", "c")
CONTENTS = (b"one", b"two", b"three")
OTHER = StoredBase(name="other")
EVENTS = st.one_of(
    st.tuples(
        st.just("publish"),
        st.sampled_from(NAMES),
        st.sampled_from(CONTENTS),
        st.sampled_from((TINY, TINY, OTHER)),
    ),
    st.tuples(st.just("unpublish"), st.sampled_from(NAMES)),
    st.tuples(st.just("cut"), st.sampled_from(NAMES)),
    st.tuples(st.just("server restarts")),
    st.tuples(st.just("server refuses"), st.sampled_from(NAMES)),
    st.tuples(st.just("registry is away")),
    st.tuples(st.just("killed"), st.integers(0, 40)),
    st.tuples(st.just("pass")),
)


class World:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.truth: dict[str, tuple[bytes, StoredBase]] = {}
        self.cut: set[Path] = set()

    def apply(self, event: tuple) -> None:
        what, *rest = event
        bench = self.bench
        if what == "publish":
            name, content, base = rest
            version = publish(bench.registry, name, content, base)
            self._mend(bench.registry / version.path, content)
            self.truth[name] = (content, base)
        elif what == "unpublish":
            (bench.registry / rest[0]).unlink(missing_ok=True)
            self.truth.pop(rest[0], None)
        elif what == "cut" and rest[0] in self.truth:
            (bench.registry / rest[0] / WEIGHTS).write_bytes(b"")
        elif what == "server restarts":
            bench.vllm.restart()
        elif what == "server refuses":
            bench.vllm.refuses = {rest[0]: "no"}
        elif what == "registry is away":
            away = bench.registry.with_name("away")
            bench.registry.rename(away)
            bench.run()
            away.rename(bench.registry)
        elif what == "killed":
            with killed_before(rest[0]) as steps:
                bench.run()
            if steps.is_dead:
                bench.start()
        elif what == "pass":
            bench.run()

    def check(self) -> None:
        """What is visible and what is loaded is whole, and one of the versions that its name ever had."""
        for path in self.bench.target.glob("[!.]*"):
            assert (path / WEIGHTS).read_bytes() in CONTENTS
        assert set(self.bench.served().values()) <= set(CONTENTS)

    def settle(self) -> None:
        self.bench.vllm.refuses = {}
        for name, (content, _) in self.truth.items():
            self._mend(self.bench.registry / name, content)
        self.bench.run(3)
        wanted = {name: content for name, (content, base) in self.truth.items() if base == TINY}
        assert self.bench.served() == wanted
        for name, (root, _) in self.bench.vllm.loaded.items():
            digest = linked_digest(name, (self.bench.target / name).readlink().as_posix())
            assert root == str(self.bench.target / version_path(name, digest or ""))
        versions = list((self.bench.target / ".store").glob("*/*"))
        assert len(versions) == len(wanted), "each name has one version, and nothing else is left"

    @staticmethod
    def _mend(folder: Path, content: bytes) -> None:
        (folder / WEIGHTS).write_bytes(content)


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=14))
def test_whatever_happens_the_server_ends_with_what_the_registry_says(events):
    folder = Path(tempfile.mkdtemp())
    try:
        with running(VllmStandIn()) as vllm:
            world = World(make_bench(folder, vllm))
            world.bench.start()
            for event in events:
                world.apply(event)
                world.check()
            world.settle()
    finally:
        shutil.rmtree(folder)
