# SPDX-License-Identifier: Apache-2.0
"""Data Store: repositories by the protocol of a Hugging Face hub under /v1/hf, with LFS, and namespaces."""

import base64
import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from support.nemo.wire import Refused, Reply, Request, reply

LFS_FROM_BYTES = 10_000_000
_WEIGHTS = (".safetensors", ".bin", ".parquet", ".nemo")
_EMPTY = "0" * 40
_KINDS = {"models": "model", "datasets": "dataset"}


@dataclass
class Repository:
    """Revisions of files; each commit is a whole tree."""

    trees: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    commits: list[str] = field(default_factory=list)
    """Messages of the commits, oldest first."""
    heads: dict[str, str] = field(default_factory=dict)
    """The last commit of each branch."""
    known: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """The tree of each commit by its id."""

    def commit(
        self, revision: str, changed: dict[str, bytes], message: str, removed: Collection[str] = ()
    ) -> str:
        tree = {**self.trees.get(revision, {}), **changed}
        self.trees[revision] = {path: content for path, content in tree.items() if path not in removed}
        entries = [(name, git_id(content)) for name, content in sorted(self.trees[revision].items())]
        self.commits.append(message)
        self.heads[revision] = hashlib.sha1(repr((self.sha(revision), entries)).encode()).hexdigest()  # noqa: S324
        self.known[self.heads[revision]] = self.trees[revision]
        return self.heads[revision]

    def tree(self, revision: str) -> dict[str, bytes] | None:
        """The files of a branch or of a commit."""
        return self.trees.get(revision, self.known.get(revision))

    def sha(self, revision: str) -> str:
        """The id of the commit that a branch or a commit stands for."""
        return revision if revision in self.known else self.heads.get(revision, _EMPTY)


def git_id(content: bytes) -> str:
    """The id of a blob in git."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324


def is_large(path: str, size: int) -> bool:
    """Whether a file goes by LFS."""
    return size >= LFS_FROM_BYTES or path.endswith(_WEIGHTS)


class DataStore:
    """The service; `repositories` by kind (`model`, `dataset`) and name."""

    def __init__(self) -> None:
        self.namespaces: set[str] = set()
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}

    def serve(self, request: Request, path: str) -> Reply:
        """A request under /v1: `datastore/namespaces` or `hf/...`."""
        if path == "datastore/namespaces":
            name = parse_qs(request.body.decode()).get("namespace", [""])[0]
            if name in self.namespaces:
                raise Refused(409, f"namespace {name} exists already")
            self.namespaces.add(name)
            return reply({"namespace": name}, 201)
        path = path.removeprefix("hf/")
        if path == "api/repos/create":
            return self._create(request)
        if path.startswith("lfs/"):
            return self._put_large(request, path.removeprefix("lfs/"))
        if found := re.fullmatch(r"(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self._of("dataset" if found[1] else "model", found[2])
            return self._batch(request)
        if found := re.fullmatch(r"api/(models|datasets)/([^/]+/[^/]+)(?:/(.*))?", path):
            return self._information(request, _KINDS[found[1]], found[2], found[3] or "")
        if found := re.fullmatch(r"(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file("dataset" if found[1] else "model", found[2], found[3], found[4])
        raise Refused(404, f"no such route: {path}")

    def _create(self, request: Request) -> Reply:
        body = request.json()
        kind, name = body.get("type") or "model", f"{body['organization']}/{body['name']}"
        prefix = "" if kind == "model" else f"{kind}s/"
        url = {"url": f"{request.base}/v1/hf/{prefix}{name}"}
        if (kind, name) in self.repositories:
            return reply({**url, "error": "You already created this repository"}, 409)
        self.repositories[kind, name] = Repository()
        return reply(url)

    def _of(self, kind: str, name: str, revision: str | None = None) -> Repository:
        repository = self.repositories.get((kind, name))
        if repository is None:
            raise _Missing("RepoNotFound", f"repository {name} does not exist")
        if revision is not None and repository.tree(revision) is None:
            raise _Missing("RevisionNotFound", f"{name} has no revision {revision}")
        return repository

    def _information(self, request: Request, kind: str, name: str, rest: str) -> Reply:
        what, _, revision = rest.partition("/")
        if what == "preupload":
            return self._preupload(request, kind, name)
        if what == "commit":
            return self._commit(request, kind, name, revision)
        if what == "tree":
            revision = revision.partition("/")[0]
            tree = self._of(kind, name, revision).tree(revision) or {}
            return reply([_entry(path, content) for path, content in sorted(tree.items())])
        if request.method == "DELETE":
            self._of(kind, name)
            del self.repositories[kind, name]
            return reply({})
        revision = revision or "main"
        repository = self._of(kind, name, revision)
        siblings = [{"rfilename": path} for path in sorted(repository.tree(revision) or {})]
        return reply({"id": name, "sha": repository.sha(revision), "siblings": siblings, "private": False})

    def _preupload(self, request: Request, kind: str, name: str) -> Reply:
        self._of(kind, name)
        files = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if is_large(each["path"], each["size"]) else "regular",
                "shouldIgnore": False,
            }
            for each in request.json()["files"]
        ]
        return reply({"files": files})

    def _batch(self, request: Request) -> Reply:
        objects = []
        for each in request.json()["objects"]:
            entry: dict[str, Any] = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.large:
                entry["actions"] = {"upload": {"href": f"{request.base}/v1/hf/lfs/{each['oid']}"}}
            objects.append(entry)
        return reply({"transfer": "basic", "objects": objects})

    def _put_large(self, request: Request, oid: str) -> Reply:
        if hashlib.sha256(request.body).hexdigest() != oid:
            raise Refused(422, f"{oid} is not the digest of what was sent")
        self.large[oid] = request.body
        return Reply(200)

    def _commit(self, request: Request, kind: str, name: str, revision: str) -> Reply:
        repository = self._of(kind, name)
        changed, removed, message = {}, set(), ""
        for line in request.body.splitlines():
            said = json.loads(line)
            value = said["value"]
            if said["key"] == "header":
                message = value["summary"]
                parent = value.get("parentCommit")
                if parent is not None and parent != repository.sha(revision):
                    raise Refused(412, f"{revision} is not at {parent} any more")
            elif said["key"] == "file":
                changed[value["path"]] = base64.b64decode(value["content"])
            elif said["key"] == "lfsFile":
                if value["oid"] not in self.large:
                    raise Refused(422, f"{value['path']} was not uploaded")
                changed[value["path"]] = self.large[value["oid"]]
            elif said["key"] == "deletedFile":
                removed.add(value["path"])
        sha = repository.commit(revision, changed, message, removed)
        prefix = "" if kind == "model" else f"{kind}s/"
        url = f"{request.base}/v1/hf/{prefix}{name}/commit/{sha}"
        return reply({"success": True, "commitUrl": url, "commitOid": sha})

    def _file(self, kind: str, name: str, revision: str, path: str) -> Reply:
        repository = self._of(kind, name)
        tree = self._of(kind, name, revision).tree(revision) or {}
        if path not in tree:
            raise _Missing("EntryNotFound", f"{name} has no file {path}")
        content = tree[path]
        tag = hashlib.sha256(content).hexdigest() if is_large(path, len(content)) else git_id(content)
        headers = {
            "ETag": f'"{tag}"',
            "X-Repo-Commit": repository.sha(revision),
            "Content-Type": "text/plain",
        }
        return Reply(200, content, headers)


class _Missing(Refused):
    """404 with the code that the hub's clients tell the cases apart by."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(404, detail)
        self.code = code

    def reply(self) -> Reply:
        return reply({"error": self.detail}, 404, **{"X-Error-Code": self.code})


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_id(content)}
    if is_large(path, len(content)):
        oid = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
    return entry
