# SPDX-License-Identifier: Apache-2.0
"""The served models: the base model, and each adapter since a request first named it or a call loaded it.

As in vLLM, a listed name is never looked up on disk again, so that a new version under the old name needs
`load_inplace`. Of the listed adapters the last ones asked for are in memory; another is read again when it is asked for.
Everything here runs in the model's one thread; readers elsewhere see whole mappings, as each change replaces them.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tuneyard_server.adapters import (
    AdapterMissingError,
    AdapterRefusedError,
    ConfigUnreadableError,
    check_adapter,
    find_adapter,
)
from tuneyard_server.errors import (
    AdapterFailedError,
    AdapterNotLoadableError,
    AdapterRequestError,
    AdapterUnknownError,
    UnknownModelError,
)
from tuneyard_server.settings import Settings

LOG = logging.getLogger("tuneyard.server")


class AdapterHolder(Protocol):
    """The part of the engine that the catalog needs."""

    def load_adapter(self, path: Path) -> str:
        """Loads it and returns the handle to generate with; raises AdapterRefusedError."""

    def drop_adapter(self, handle: str) -> None:
        """Frees it."""


@dataclass(frozen=True)
class Listed:
    """An adapter that answers to its name."""

    path: Path
    created: int
    """Unix time of the first load, in seconds."""


class Catalog:
    """The adapters of one base model."""

    def __init__(self, settings: Settings, holder: AdapterHolder) -> None:
        self._settings = settings
        self._holder = holder
        self._handles: dict[str, str] = {}
        """The engine's handle of each adapter in memory, by name; the one asked for last is the last."""
        self._problems: dict[str, str] = {}
        """Why a folder was not loaded at the last look, by name."""
        self.listed: Mapping[str, Listed] = {}

    def find_handle(self, name: str) -> str | None:
        """The handle to answer `name` with, loading what is not in memory; None: the base model.

        Raises:
            RequestError: there is no such adapter, or it can't be loaded.
        """
        if name == self._settings.served_name:
            return None
        if name not in self._handles:
            self._resolve(name)
        handle = self._handles.pop(name)
        self._handles[name] = handle
        return handle

    def load(self, name: str, path: str, *, is_in_place: bool) -> None:
        """Lists an adapter from any folder; its configuration need not name the base model.

        Raises:
            RequestError: the name is taken, or the adapter can't be loaded; what was there before stays.
        """
        if not name or not path:
            raise AdapterRequestError("Both 'lora_name' and 'lora_path' must be provided.")
        if name == self._settings.served_name:
            raise AdapterRequestError(f"The lora adapter '{name}' conflicts with a served base model.")
        if name in self.listed and not is_in_place:
            raise AdapterRequestError(
                f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set "
                "'load_inplace' to True."
            )
        try:
            self._load(name, Path(path))
        except AdapterMissingError:
            raise AdapterUnknownError(f"Loading lora {name} failed: No adapter found for {path}") from None
        except AdapterRefusedError as error:
            raise AdapterFailedError(f"Call to add_lora method failed: {error}") from error

    def unload(self, name: str) -> None:
        """Takes an adapter off the list.

        Raises:
            AdapterUnknownError: it is not on it.
        """
        if name not in self.listed:
            raise AdapterUnknownError(f"The lora adapter '{name}' cannot be found.")
        self._forget(name)
        LOG.info("adapter %s is removed from the list", name)

    def look(self) -> None:
        """Lists every adapter that is new in the folder. One that can't be loaded is tried again at the next look."""
        settings, problems = self._settings, dict[str, str]()
        folder = settings.adapters
        if folder is None:
            return
        for name in _names_in(folder):
            if name in self.listed or name == settings.served_name:
                continue
            try:
                if path := find_adapter(folder, name, settings.model):
                    self._load(name, path)
            except (ConfigUnreadableError, AdapterMissingError, AdapterRefusedError, OSError) as error:
                problems[name] = f"{type(error).__name__}: {error}"
                if self._problems.get(name) != problems[name]:
                    LOG.warning("adapter %s is not served: %s", name, problems[name])
        self._problems = problems

    def _resolve(self, name: str) -> None:
        known = self.listed.get(name)
        try:
            path = known.path if known else self._find(name)
            if path is None:
                raise UnknownModelError(name, self._settings.served_name)
            self._load(name, path)
        except ConfigUnreadableError as error:
            raise (AdapterFailedError if error.is_incomplete else AdapterNotLoadableError)(
                str(error)
            ) from error
        except AdapterMissingError:  # Its files were removed while it was not in memory.
            self._forget(name)
            raise UnknownModelError(name, self._settings.served_name) from None
        except AdapterRefusedError as error:
            LOG.warning("adapter %s is not served: %s", name, error)
            raise AdapterNotLoadableError(
                f"LoRA adapter '{name}' was found but could not be loaded."
            ) from error

    def _find(self, name: str) -> Path | None:
        settings = self._settings
        if settings.adapters is None or not settings.allows_updating:
            return None
        return find_adapter(settings.adapters, name, settings.model)

    def _load(self, name: str, path: Path) -> None:
        check_adapter(path, self._settings.max_lora_rank)
        handle = self._holder.load_adapter(path)
        if former := self._handles.pop(name, None):
            self._holder.drop_adapter(former)
        self._handles[name] = handle
        self.listed = {**self.listed, name: Listed(path, int(time.time()))}
        LOG.info("adapter %s is served from %s", name, path)
        while len(self._handles) > self._settings.max_cpu_loras:
            oldest = next(iter(self._handles))
            self._holder.drop_adapter(self._handles.pop(oldest))

    def _forget(self, name: str) -> None:
        self.listed = {other: value for other, value in self.listed.items() if other != name}
        if handle := self._handles.pop(name, None):
            self._holder.drop_adapter(handle)


def _names_in(folder: Path) -> list[str]:
    """The names of folders and links to folders; those that begin with a dot are somebody's own."""
    try:
        return sorted(
            path.name for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir()
        )
    except OSError as error:
        LOG.warning("no adapter is found in %s: %s", folder, error)
        return []
