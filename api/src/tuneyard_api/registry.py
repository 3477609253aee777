# SPDX-License-Identifier: Apache-2.0
"""The layout of a registry of adapters, on a claim and in S3: its names, and the digest that readers check.

`.store/<name>/<digest>/` holds the files of one version, which never change. A name points to one version: on a claim by
the relative link `<name>`, in S3 by the object `<name>.json`, which is a copy of the version's VERSION_FILE. A registry
of a former release has a folder `<name>/` instead of the link; it is read as the version that its digest says.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue

from tuneyard_api.base import Label, Tolerant
from tuneyard_api.gate import KeptEvaluation
from tuneyard_api.methods import method_of
from tuneyard_api.pod_contract import ADAPTER_CONFIG, ADAPTER_FILES

STORE = ".store"
"""Folder of all versions; a server reads no name that begins with a dot."""
VERSION_FILE = "version.json"
"""The file beside those of the digest that says what the version is."""
REPORT_HTML, REPORT_MARKDOWN = "report.html", "report.md"
"""The report on the job that stored the version, beside its files."""
STATUS_PORT = 9472
"""Port of GET /adapters beside a server: what adapter-sync has done with each name."""
MARKS = ".published-by"
"""Folder inside a version: one empty file for each FineTuneJob that published it, named by its uid."""
POINTER_SUFFIX = ".json"
MAX_JSON_BYTES = 1 << 20
"""No adapter_config.json and no VERSION_FILE is larger."""

_ALGORITHM = "sha256:"
_DIGEST = r"sha256:[0-9a-f]{64}"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class PublishedDigest:
    """`sha256:` over name, length in bytes and content of each file; its text is the digest of what was added so far."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, name: str, length: int, blocks: Iterable[bytes]) -> None:
        """Add one file; files are added in the order of their names."""
        self._sha256.update(f"{name}\0{length}\0".encode())
        for block in blocks:
            self._sha256.update(block)

    def __str__(self) -> str:
        return f"sha256:{self._sha256.hexdigest()}"


def published_digest(folder: Path, names: Iterable[str] = ADAPTER_FILES) -> str:
    """The PublishedDigest of files in a folder.

    Raises:
        OSError: a file can't be read.
    """
    digest = PublishedDigest()
    for name in sorted(names):
        with (folder / name).open("rb") as file:
            digest.add(name, (folder / name).stat().st_size, iter(partial(file.read, 1 << 20), b""))
    return str(digest)


class StoredBase(Tolerant):
    """The base model of a version: a repository on a hub, or the name of a folder."""

    repo: str | None = None
    """`owner/name`."""
    revision: str | None = None
    """Branch, tag or commit as the job asked for it."""
    commit: str | None = None
    """What that was when the job ran; adapter_config.json names it as `revision`."""
    name: str | None = None
    """For a model on a claim: the last part of its path."""

    def __str__(self) -> str:
        """`Qwen/Qwen2.5-7B-Instruct at a09a354`, or `tiny-llama`."""
        if self.repo is None:
            return str(self.name)
        revision = self.revision or self.commit
        return f"{self.repo} at {revision}" if revision else self.repo

    @classmethod
    def of_config(cls, config: dict[str, Any]) -> Self:
        """The base in adapter_config.json; a name without a revision may be a repository or a folder.

        Raises:
            ValueError: it names none.
        """
        said, revision = config.get("base_model_name_or_path"), config.get("revision")
        if not isinstance(said, str) or not said:
            raise ValueError(f"{ADAPTER_CONFIG} has no base_model_name_or_path")
        return cls(repo=said, commit=revision) if revision else cls(repo=said, name=said)

    def is_base_of(self, adapter: "StoredBase") -> bool:
        """Whether an adapter fits this model; one that was stored without a revision fits every revision."""
        if self.repo is None:
            return self.name is not None and self.name == adapter.name
        revisions = {adapter.revision, adapter.commit} - {None}
        return self.repo == adapter.repo and (
            self.revision is None or not revisions or self.revision in revisions
        )


class Publisher(Tolerant):
    """The FineTuneJob that stored a version first."""

    namespace: str
    name: str
    uid: str = ""


class Question(Tolerant):
    """A held-out prompt, and what the tuned model answered when it was evaluated."""

    prompt: str
    messages: tuple[dict[str, JsonValue], ...] | None = None
    """Chat: what to send instead of `prompt`."""
    answer: str


class Trial(Tolerant):
    """What a server is asked before a name that it serves moves to this version."""

    questions: Annotated[tuple[Question, ...], Field(min_length=1)]
    max_new_tokens: int
    """Longest answer, in tokens; decoding is greedy."""
    min_similarity: float = 0.5
    """Mean similarity of the answers to those of the evaluation, 0 to 1, at which the version passes."""


class Version(Tolerant):
    """One version of an adapter or model: VERSION_FILE, and in S3 the pointer object too."""

    schema_version: Literal[1] = 1
    name: Label
    """What the endpoint lists."""
    digest: Annotated[str, Field(pattern=f"^{_DIGEST}$")]
    """Digest of the files, as `published_digest` computes it."""
    files: tuple[str, ...] = ADAPTER_FILES
    """What the digest is over."""
    base: StoredBase
    method: str | None = None
    rank: int | None = None
    """Rank of a LoRA; None for other methods."""
    evaluation: KeptEvaluation | None = None
    """How the job that stored it measured it."""
    trial: Trial | None = None
    """Questions for servers; absent: none."""
    replaces: Annotated[str, Field(pattern=f"^{_DIGEST}$")] | None = None
    """Digest of the version that the name stood for when this one was stored."""
    job: Publisher | None = None

    @property
    def is_adapter(self) -> bool:
        """Whether it is an adapter that servers load, and no whole model and no virtual tokens."""
        is_known = self.method is None or method_of(self.method, dora=False).result == "adapter"
        return is_known and tuple(self.files) == ADAPTER_FILES

    @property
    def path(self) -> str:
        """Its folder below the registry."""
        return version_path(self.name, self.digest)

    def encode(self) -> bytes:
        """The content of VERSION_FILE."""
        return self.model_dump_json(by_alias=True, exclude_none=True, indent=2).encode() + b"\n"


def trial_name(name: str, digest: str) -> str:
    """The name under which a server is tried with a version; the dot keeps it apart from names of adapters."""
    return f"{name}.{hex_of(digest)[:12]}"


def hex_of(digest: str) -> str:
    """`sha256:<hex>` as the name of a folder."""
    return digest.removeprefix(_ALGORITHM)


def version_path(name: str, digest: str) -> str:
    """`.store/<name>/<hex>`: the folder of a version below the registry, and the text of the link that points to it."""
    return f"{STORE}/{name}/{hex_of(digest)}"


def linked_digest(name: str, link: str) -> str | None:
    """The digest in the target of the link `<name>`; None if it is not a link of a registry."""
    digest = _ALGORITHM + PurePath(link).name
    return digest if re.fullmatch(_DIGEST, digest) and link == version_path(name, digest) else None


def pointer_name(key: str) -> str | None:
    """The name that the object of this key below the prefix points from; None if it is no pointer."""
    name = key.removesuffix(POINTER_SUFFIX)
    return name if name != key and is_name(name) else None


def is_name(text: str) -> bool:
    """Whether an adapter can have this name."""
    return _NAME.fullmatch(text) is not None


def read_version(name: str, folder: Path) -> Version:
    """The version in a folder on a claim; without VERSION_FILE (a former release) it is computed from all files.

    Raises:
        OSError: it can't be read.
        ValueError: it says nonsense.
    """
    try:
        return Version.model_validate_json(read_json(folder / VERSION_FILE))
    except FileNotFoundError:
        base = StoredBase.of_config(read_config(folder))
        return Version(name=name, digest=published_digest(folder), base=base)


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json of a folder.

    Raises:
        OSError: it can't be read.
        ValueError: it is no JSON object.
    """
    config = json.loads(read_json(folder / ADAPTER_CONFIG))
    if isinstance(config, dict):
        return config
    raise ValueError(f"{ADAPTER_CONFIG} is no object")


def read_json(path: Path) -> bytes:
    """The bytes of a small file.

    Raises:
        ValueError: it is larger than any of its kind.
    """
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{path.name} has more than {MAX_JSON_BYTES} bytes")
    return path.read_bytes()
