# SPDX-License-Identifier: Apache-2.0
"""One pass: read the registry, bring what is missing, let the server load it, take away what nothing points to any more.

Nothing is remembered that the folder and the server do not say themselves, but for when to try again: after a restart of
either container the next pass finds what to do. What can't be read is no reason to take anything away.
"""

import errno
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tuneyard_api.registry import StoredBase, Version, trial_name

from tuneyard_sync.copies import Copies
from tuneyard_sync.servers import Server, ServerError
from tuneyard_sync.sources import Pointers, RegistryError, Source
from tuneyard_sync.status import AdapterStatus, Log, SyncStatus
from tuneyard_sync.trials import why_unlike

_LONGEST_WAIT = 60.0
"""Longest time in seconds between two tries of a version that could not be copied or loaded."""


@dataclass(frozen=True)
class _Trouble:
    """A step that failed for a version of a name."""

    digest: str
    problem: str
    wait: float
    again_at: float


@dataclass
class Sync:
    """Keeps a server's adapters in the state of the registry."""

    source: Source
    copies: Copies
    server: Server
    base: StoredBase
    """Base model of the server."""
    interval: float
    """Seconds between two passes, and before the first new try."""
    keep_seconds: float
    """Seconds for which a version without a name stays: a request that is being answered may still read it."""
    clock: Callable[[], float]
    """Monotonic clock, in seconds."""
    log: Log
    _passes: int = 0
    _not_brought: dict[str, _Trouble] = field(default_factory=dict)
    _not_loaded: dict[str, _Trouble] = field(default_factory=dict)
    _not_passed: dict[str, _Trouble] = field(default_factory=dict)
    _on_trial: dict[str, Version] = field(default_factory=dict)
    """Versions of this pass that a name moves to only after the server was tried with them."""
    _left_since: dict[Path, float] = field(default_factory=dict)

    def run_once(self) -> SyncStatus:
        """One pass; what is wrong stands in the status and, once, in the log.

        Raises:
            OSError: the server's folder itself can't be read or changed.
        """
        self._passes += 1
        pointers, registry_problem = self._read()
        wanted, others = self._chosen(pointers)
        unreadable = {name: str(said) for name, said in pointers.items() if isinstance(said, RegistryError)}
        self._on_trial = {}
        for version in wanted.values():
            self._attempt(self._not_brought, version.name, version.digest, partial(self._bring, version))
        if registry_problem is None:
            self._forget(wanted.keys() | unreadable.keys())
        server_problem, loaded = None, None
        try:
            loaded = self._serve(self.server.loaded())
        except ServerError as error:
            server_problem = str(error)
        else:
            self._remove_left(loaded, {self.copies.path(each.name, each.digest) for each in wanted.values()})
        names = sorted({*wanted, *unreadable, *self.copies.names()})
        status = SyncStatus(
            adapters=tuple(self._status_of(name, wanted.get(name), unreadable, loaded) for name in names),
            others=others,
            registry_problem=registry_problem,
            server_problem=server_problem,
            passes=self._passes,
        )
        problems = {each.name: each.problem for each in status.adapters}
        problems |= {"registry": registry_problem, "server": server_problem}
        self.log.problems({subject: problem for subject, problem in problems.items() if problem})
        return status

    def _read(self) -> tuple[Pointers, str | None]:
        try:
            return self.source.pointers(), None
        except RegistryError as error:
            return {}, str(error)

    def _chosen(self, pointers: Pointers) -> tuple[dict[str, Version], dict[str, str]]:
        """The adapters of the server's base, and why others are left out."""
        wanted, others = {}, {}
        for name, version in pointers.items():
            if isinstance(version, RegistryError):
                continue
            if not version.is_adapter:
                others[name] = f"no adapter, but what method {version.method or 'sft'} makes"
            elif not self.base.is_base_of(version.base):
                others[name] = f"an adapter of {version.base}; the server has {self.base}"
            else:
                wanted[name] = version
        return wanted, others

    def _attempt(
        self, troubles: dict[str, _Trouble], name: str, digest: str, step: Callable[[], None]
    ) -> None:
        """One step for one name. If it fails, the others go on, and it is tried again later and later."""
        now, before = self.clock(), troubles.get(name)
        if before is not None and before.digest != digest:
            before = None
        if before is not None and now < before.again_at:
            return
        try:
            step()
        except (RegistryError, ServerError) as error:
            problem = str(error)
        except OSError as error:
            problem = f"{self.copies.root}: {error.strerror or error}"
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                problem += "; try a larger volume beside the server, or fewer adapters in the registry"
        else:
            troubles.pop(name, None)
            return
        wait = self.interval if before is None else min(before.wait * 2, max(_LONGEST_WAIT, self.interval))
        troubles[name] = _Trouble(digest, problem, wait, now + wait)

    def _bring(self, version: Version) -> None:
        if self.copies.bring(version, self.source):
            self.log.say(f"{version.name}: brought {version.digest}")
        if version.trial is not None and self.server.is_tried and self._has_former(version):
            self._on_trial[version.name] = version
        else:
            self.copies.point(version.name, version.digest)

    def _has_former(self, version: Version) -> bool:
        """Whether the name stands for another version, which is brought back if this folder is new."""
        pointed = self.copies.pointed(version.name)
        if pointed is None and version.replaces is not None:
            former = self.source.stored(version.name, version.replaces)
            if former is not None:
                self.copies.bring(former, self.source)
                self.copies.point(former.name, former.digest)
                self.log.say(f"{former.name}: brought {former.digest}, until {version.digest} was tried")
                pointed = former.digest
        return pointed not in {None, version.digest}

    def _forget(self, names: Collection[str]) -> None:
        """All other names go: the registry was read, and has them no more, or for another base model."""
        for name in self.copies.names():
            if name not in names:
                self.copies.unpoint(name)
                self.log.say(f"{name}: removed, as the registry has it no more for {self.base}")
        for troubles in (self._not_brought, self._not_loaded, self._not_passed):
            for name in troubles.keys() - names:
                del troubles[name]

    def _serve(self, listed: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """What the names of the folder stand for is loaded, and nothing else of the folder; returns what is loaded then."""
        if listed is None:
            return None
        loaded = dict(listed)
        pointed = {name: self.copies.pointed(name) for name in self.copies.names()}
        for name in [name for name in loaded if self._is_ours(loaded[name]) and name not in pointed]:
            self.server.unload(name)
            del loaded[name]
            self.log.say(f"{name}: unloaded")
        for name, digest in pointed.items():
            if digest is not None and loaded.get(name) != str(self.copies.path(name, digest)):
                self._attempt(self._not_loaded, name, digest, partial(self._load, name, digest, loaded))
        for version in self._on_trial.values():
            self._attempt(self._not_passed, version.name, version.digest, partial(self._try, version, loaded))
        return loaded

    def _try(self, version: Version, loaded: dict[str, str]) -> None:
        """The server is asked with the version under a name of its own; then the name moves to it, or stays where it is."""
        name = trial_name(version.name, version.digest)
        self.server.load(name, self.copies.path(version.name, version.digest), replaces=False)
        try:
            problem = version.trial and why_unlike(self.server, name, version.trial)
        finally:
            self.server.unload(name)
        if problem is not None:
            raise ServerError(
                f"{problem}; {version.name} stays with {self.copies.pointed(version.name)} (try another job, or an earlier"
                " version)"
            )
        self.log.say(f"{version.name}: {version.digest} answers as it was evaluated")
        self._load(version.name, version.digest, loaded)
        self.copies.point(version.name, version.digest)

    def _load(self, name: str, digest: str, loaded: dict[str, str]) -> None:
        folder = self.copies.path(name, digest)
        if name in loaded and not self._is_ours(loaded[name]):
            raise ServerError(
                f"the server has something else of this name ({loaded[name] or 'no root'}); try another publish.adapterName"
            )
        self.server.load(name, folder, replaces=name in loaded)
        loaded[name] = str(folder)
        self.log.say(f"{name}: loaded {digest}")

    def _is_ours(self, root: str) -> bool:
        return Path(root).is_relative_to(self.copies.root)

    def _remove_left(self, loaded: Mapping[str, str] | None, wanted: Collection[Path]) -> None:
        now, left = self.clock(), [path for path in self.copies.left() if path not in wanted]
        self._left_since = {path: self._left_since.get(path, now) for path in left}
        in_use = () if loaded is None else loaded.values()
        for path in left:
            if now - self._left_since[path] >= self.keep_seconds and str(path) not in in_use:
                self.copies.remove(path)

    def _status_of(
        self,
        name: str,
        version: Version | None,
        unreadable: Mapping[str, str],
        loaded: Mapping[str, str] | None,
    ) -> AdapterStatus:
        digest = version.digest if version is not None else self.copies.pointed(name)
        not_passed = self._not_passed.get(name)
        troubles = [
            trouble.problem
            for trouble in (self._not_brought.get(name), self._not_loaded.get(name), not_passed)
            if trouble is not None
        ]
        is_loaded = None
        if loaded is not None and digest is not None:
            is_loaded = loaded.get(name) == str(self.copies.path(name, digest))
        return AdapterStatus(
            name=name,
            digest=digest,
            loaded=is_loaded,
            problem=unreadable.get(name) or next(iter(troubles), None),
            refused=not_passed.problem if not_passed is not None and not_passed.digest == digest else None,
        )
