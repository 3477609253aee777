# SPDX-License-Identifier: Apache-2.0
"""Chat templates of public packages, read out of their source archives; nothing of the archives is kept but the templates.

`tests/data/chat_templates` pins the archives. The templates stay in the cache, by the digest of their archive and of this
module.
"""

import ast
import hashlib
import io
import json
import tarfile
import tomllib
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tuneyard_local.paths import cache_root, locked

LOCK = Path(__file__).parents[1] / "data" / "chat_templates" / "uv.lock"
SUFFIXES = (".jinja", ".jinja2")


def locked_archives() -> dict[str, dict[str, Any]]:
    """The source archives by the names of their packages: `url` and `hash` (sha256)."""
    packages = tomllib.loads(LOCK.read_text())["package"]
    return {package["name"]: package["sdist"] for package in packages if "sdist" in package}


def chat_templates_of(package: str) -> dict[str, str]:
    """The templates of a package: their places in the archive, and their sources. Each source is there once.

    The test is skipped where the package index does not answer.
    """
    archive = locked_archives()[package]
    recipe = hashlib.sha256(archive["hash"].encode() + Path(__file__).read_bytes()).hexdigest()[:16]
    kept = cache_root() / "chat-templates" / f"{package}-{recipe}.json"
    with locked(kept.with_suffix(".lock")):
        if not kept.is_file():
            fresh = kept.with_suffix(".new")
            fresh.write_text(json.dumps(_read(_download(archive))))
            fresh.rename(kept)
    templates: dict[str, str] = json.loads(kept.read_text())
    return templates


def _download(archive: dict[str, Any]) -> bytes:
    try:
        with urllib.request.urlopen(archive["url"], timeout=60) as answer:
            content: bytes = answer.read()
    except OSError as error:
        pytest.skip(f"{archive['url']}: the package index can't be reached: {error}")
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert digest == archive["hash"], f"{archive['url']}: {digest}, locked is {archive['hash']}"
    return content


def _read(archive: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.name.endswith((*SUFFIXES, ".py")) else None
            content = stream.read() if stream else b""
            if b"{%" in content and b"messages" in content:
                path = member.name.partition("/")[2]
                found.update((source, place) for place, source in _templates_in(path, content))
    return {place: source for source, place in found.items()}


def _templates_in(path: str, content: bytes) -> Iterator[tuple[str, str]]:
    if path.endswith(SUFFIXES):
        yield path, content.decode()
        return
    with warnings.catch_warnings(action="ignore"):
        try:
            nodes = list(ast.walk(ast.parse(content)))
        except SyntaxError:
            return
    for node in nodes:
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if "{%" in node.value and "messages" in node.value:
            yield f"{path}:{node.lineno}", node.value
