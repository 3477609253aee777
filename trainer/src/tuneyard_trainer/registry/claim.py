# SPDX-License-Identifier: Apache-2.0
"""Writes a registry on a claim: a version enters the store whole, and a name moves to another version by one rename.

Other jobs may publish, unpublish and retire at the same time, and a kill may come after each step. So a publisher marks
its version first and looks again at the end; and whoever removes a version renames it first, and looks again before it
deletes the files.
"""

import errno
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tuneyard_api import durable
from tuneyard_api.places import RegistryRetention
from tuneyard_api.pod_contract import FailureClass
from tuneyard_api.registry import (
    STORE,
    VERSION_FILE,
    StoredBase,
    Version,
    linked_digest,
    read_config,
    read_json,
    version_path,
)

from tuneyard_trainer.pod.failures import StageFailure
from tuneyard_trainer.registry.content import Content, after
from tuneyard_trainer.registry.publishers import erase, has_signed, leave, sign, sign_too, who_stays
from tuneyard_trainer.registry.retention import GRACE_SECONDS, Candidate, to_retire
from tuneyard_trainer.workspace.layout import tuned_digest, tuned_files

_TRIES = 5
_FORMER, _RETIRED = "former", "retired"


class _AlteredError(StageFailure):
    """The stored files are not those of the digest."""


@dataclass(frozen=True)
class ClaimRegistry:
    """The registry in a folder."""

    root: Path

    def publish(self, version: Version, content: Content, uid: str, *, replace: bool) -> str:
        """Let the name stand for this version; returns the path of the name.

        Raises:
            StageFailure: what `content.admit` says; AdapterConflict, if the name stands for another version and `replace`
                is false, or if the stored version was altered; DiskFull, if the registry is full.
            OSError: what can't be written for another reason.
        """
        place = self.root / version.name
        problem = StageFailure(
            FailureClass.UPSTREAM,
            f"{place}: other jobs publish and unpublish under this name at the same time (tried {_TRIES} times); try"
            " later, or another publish.adapterName",
        )
        for _ in range(_TRIES):
            try:
                if self._publish(version, content, uid, replace=replace):
                    return str(place)
            except _AlteredError as altered:
                problem = altered  # or the version was removed and stored again while it was read
            except OSError as error:
                if not _has_gone(error, self.root):
                    raise self._explained(error) from error
        raise problem

    def retire(self, name: str, retention: RegistryRetention, now: float) -> list[str]:
        """Remove earlier versions of a name; returns their digests in hex. `now` is Unix time in seconds.

        Raises:
            OSError: what could not be removed; running again goes on.
        """
        folder = self.root / STORE / name
        for torn in [*folder.glob(".*.tmp-*"), *self.root.glob(f".{name}.tmp-*")]:
            if torn.lstat().st_mtime < now - GRACE_SECONDS:
                _remove(torn)
        for aside in folder.glob(f".*.gone-{_RETIRED}"):
            self._end_retirement(name, aside, now)
        current = self._found(name)
        earlier = [
            Candidate(path.name, _left_at(path), is_marked=bool(who_stays(path, since=now - GRACE_SECONDS)))
            for path in self._versions(name)
            if current != _digest_of(path)
        ]
        gone = []
        for digest in to_retire(earlier, retention, now):
            aside = _aside(folder / digest, _RETIRED)
            _rename(folder / digest, aside)
            if self._end_retirement(name, aside, now):
                gone.append(digest)
        return gone

    def unpublish(self, name: str, uid: str) -> str:
        """Remove what the job of this uid has published under a name; returns one sentence on what was done.

        Raises:
            OSError: what could not be removed; running again goes on.
        """
        target, store = self.root / name, self.root / STORE / name
        if not self.root.is_dir():
            return f"{target}: the registry's folder is not there"
        for torn in [*self.root.glob(f".{name}.tmp-*"), *store.glob(".*.tmp-*")]:
            if has_signed(torn, uid) or (torn.is_symlink() and not torn.exists()):
                _remove(torn)
        places = [*self._versions(name), *([target] if self._is_plain(name) else [])]
        begun = [path.with_name(_name_before(path, uid)) for path in store.glob(f".*.gone-{uid}")]
        if _aside(target, uid).exists():
            begun.append(target)
        mine = {place for place in places if has_signed(place, uid)} | set(begun)
        if not mine:
            there = "holds what others published" if target.exists() else "is not there"
            return f"{target}: nothing of this job, the name {there}"
        has_gone = [self._unpublish(place, uid) for place in sorted(mine)]
        if not all(has_gone):
            return f"{target}: stays, another job has published the same"
        if target.exists():
            return f"{target}: removed the version of this job; the name stands for another one"
        return f"{target}: removed"

    def _publish(self, version: Version, content: Content, uid: str, *, replace: bool) -> bool:
        """One try; False: another job has undone it."""
        found = self._found(version.name)
        if found not in {None, version.digest} and not replace:
            raise self._taken(version.name, f"got {version.digest}, there is {found}")
        former = None if found is None else self._former(version.name, found)
        content.admit(former)
        if found == version.digest and self._is_plain(version.name):
            sign_too(self.root / version.name, uid)
            return True
        self._store(after(version, former), content, uid)
        if self._found(version.name) != found:
            return False  # it was admitted beside another version than the one of now
        return self._point(version, found)

    def _found(self, name: str) -> str | None:
        """The digest that the name stands for, or None.

        Raises:
            StageFailure: AdapterConflict, if the name is something else than an adapter or a model of a registry.
            FileNotFoundError: it was removed at this moment.
        """
        path = self.root / name
        if path.is_symlink():
            link = path.readlink().as_posix()
            digest = linked_digest(name, link)
            if digest is None:
                raise self._taken(name, f"it links to {link}")
            return digest if path.exists() else None
        if not path.exists():
            return None
        if not tuned_files(path):
            raise self._taken(name, "there is no whole adapter")
        return tuned_digest(path)

    def _former(self, name: str, digest: str) -> Version:
        """The version that the name stands for; what it says of itself counts only if it is the one of the digest."""
        try:
            version = Version.model_validate_json(read_json(self.root / name / VERSION_FILE))
        except (FileNotFoundError, ValueError):
            version = None
        if version is not None and version.digest == digest:
            return version
        return Version(name=name, digest=digest, base=StoredBase())

    def _store(self, version: Version, content: Content, uid: str) -> None:
        """Write the version into the store, or check the one that is there; marked as this job's."""
        target = self.root / version.path
        if not target.is_dir():
            try:
                with durable.folder_being_written(target) as folder:
                    sign(folder, uid)
                    for name in version.files:
                        shutil.copyfile(content.files / name, folder / name)
                    content.describe(folder)
                    (folder / VERSION_FILE).write_bytes(version.encode())
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise  # otherwise another publisher of the same was quicker
        sign_too(target, uid)
        found = tuned_digest(target) if tuned_files(target) else "no whole adapter"
        if found != version.digest:
            raise _AlteredError(
                FailureClass.ADAPTER_CONFLICT,
                f"{target}: was cut or altered after it was stored (got {found}, expected {version.digest}); try removing"
                " this folder, and the job again",
            )

    def _point(self, version: Version, found: str | None) -> bool:
        """Let the name stand for the stored version; False: another job was quicker, or has removed the version."""
        link = self.root / version.name
        if self._is_plain(version.name) and found is not None:
            self._move_into_store(version.name, found)
        if found not in {None, version.digest}:
            _note_that_it_is_left(self.root / version_path(version.name, str(found)))
        if link.is_symlink():
            if found != version.digest:
                durable.write_link(link, version.path)
        else:
            try:
                link.symlink_to(version.path)
            except FileExistsError:
                return False
            durable.sync_folder(self.root)
        return self._found(version.name) == version.digest

    def _move_into_store(self, name: str, digest: str) -> None:
        """Make a folder of a former release a version of the store.

        Between this and the new link the name is missing, as no rename puts a link in place of a folder.
        """
        folder, target = self.root / name, self.root / version_path(name, digest)
        if not (folder / VERSION_FILE).exists():
            files = tuple(tuned_files(folder))
            former = Version(name=name, digest=digest, files=files, base=_base_of(folder))
            durable.write_file(folder / VERSION_FILE, former.encode())
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            aside = _aside(folder, _FORMER)
            _rename(folder, aside)
            shutil.rmtree(aside)
            return
        _rename(folder, target)
        durable.sync_folder(self.root)

    def _unpublish(self, version: Path, uid: str) -> bool:
        """Remove one version; False: it stays, as another job has published it too."""
        aside = _aside(version, uid)
        if not aside.exists():
            leave(version, uid)
            if who_stays(version):
                erase(version, uid)
                return False
            _rename(version, aside)
        if who_stays(aside) and not version.exists():
            # Another job has published the same between the look and the rename.
            erase(aside, uid)
            _rename(aside, version)
            return False
        if version.parent != self.root:
            self._unpoint(version.parent.name, version)
        shutil.rmtree(aside)
        durable.sync_folder(version.parent)
        if version.parent != self.root:
            with suppress(OSError):
                version.parent.rmdir()  # refused while other versions are there
        return True

    def _unpoint(self, name: str, version: Path) -> None:
        """Remove the name if it stands for the version that is gone."""
        link = self.root / name
        if link.is_symlink() and link.readlink().name == version.name and not version.exists():
            text = link.readlink()
            link.unlink()
            if version.exists():
                with suppress(FileExistsError):
                    link.symlink_to(text)  # another job has published the same at this moment
            durable.sync_folder(self.root)

    def _end_retirement(self, name: str, aside: Path, now: float) -> bool:
        """Delete a version that was renamed; False: it was put back, as a job has come back to it."""
        version = aside.with_name(_name_before(aside, _RETIRED))
        link = self.root / name
        is_pointed = link.is_symlink() and link.readlink().name == version.name
        if not version.exists() and (is_pointed or who_stays(aside, since=now - GRACE_SECONDS)):
            _rename(aside, version)
            return False
        shutil.rmtree(aside)
        return True

    def _versions(self, name: str) -> Iterator[Path]:
        yield from sorted((self.root / STORE / name).glob("[!.]*"))

    def _is_plain(self, name: str) -> bool:
        """Whether the name is a folder of a former release."""
        path = self.root / name
        return path.is_dir() and not path.is_symlink()

    def _explained(self, error: OSError) -> Exception:
        """An error with advice for a registry, where the advice for a workspace would not help."""
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            return error
        return StageFailure(
            FailureClass.DISK_FULL,
            f"{self.root}: the registry is full ({error.strerror}); try a larger claim, or registryRetention in the runtime,"
            " which removes earlier versions",
        )

    def _taken(self, name: str, what: str) -> StageFailure:
        return StageFailure(
            FailureClass.ADAPTER_CONFLICT,
            f"{self.root / name}: the name is taken by another adapter ({what}); try another publish.adapterName, or"
            " publish.replace: true if the servers are to answer with this one from now on",
        )


def _has_gone(error: OSError, root: Path) -> bool:
    """Whether something of the registry was removed by another job at this moment, and so is to be stored again."""
    return isinstance(error, FileNotFoundError) and Path(error.filename or "").is_relative_to(root)


def _base_of(folder: Path) -> StoredBase:
    """The base model that a folder of a former release names, if it does."""
    try:
        return StoredBase.of_config(read_config(folder))
    except (FileNotFoundError, ValueError):
        return StoredBase()


def _aside(folder: Path, why: str) -> Path:
    return folder.with_name(f".{folder.name}.gone-{why}")


def _name_before(aside: Path, why: str) -> str:
    """The name of a folder before `_aside`."""
    return aside.name[1:].removesuffix(f".gone-{why}")


def _digest_of(version: Path) -> str:
    return f"sha256:{version.name}"


def _left_at(version: Path) -> float:
    """The Unix time at which another version took the name."""
    file = version / VERSION_FILE
    return (file if file.exists() else version).stat().st_mtime


def _note_that_it_is_left(version: Path) -> None:
    if (version / VERSION_FILE).exists():
        (version / VERSION_FILE).touch()


def _remove(torn: Path) -> None:
    with suppress(FileNotFoundError):  # its writer has renamed it at this moment
        if torn.is_dir() and not torn.is_symlink():
            shutil.rmtree(torn)
        else:
            torn.unlink()


def _rename(folder: Path, name: Path) -> None:
    """Rename, durably."""
    folder.rename(name)
    durable.sync_folder(name.parent)
