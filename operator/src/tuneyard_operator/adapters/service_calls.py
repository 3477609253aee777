# SPDX-License-Identifier: Apache-2.0
"""Sends requests to services that train, with the operator's token, which appears in no message."""

import logging
from pathlib import Path
from typing import Any

import aiohttp

from tuneyard_operator.adapters.nemo import Answer

log = logging.getLogger(__name__)
_TIMEOUT = aiohttp.ClientTimeout(total=20, connect=5)


class ServiceCalls:
    """The `Call` of adapters.nemo over HTTP. The token is read again for each request, as its Secret may be replaced."""

    def __init__(self, session: aiohttp.ClientSession, token_file: str) -> None:
        self._session, self._token_file = session, Path(token_file) if token_file else None

    def token(self) -> str:
        """The token, or nothing when there is none or it can't be read."""
        if self._token_file is None:
            return ""
        try:
            return self._token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            log.warning("the token for services can't be read: %s", error)
            return ""

    async def __call__(self, method: str, url: str, body: Any) -> Answer:
        """The answer; redirects are not followed, so that the token stays with the service."""
        token = self.token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            async with self._session.request(
                method, url, json=body, headers=headers, timeout=_TIMEOUT, allow_redirects=False
            ) as response:
                return Answer(
                    status=response.status,
                    body=await response.read(),
                    retry_after=_seconds(response.headers.get("Retry-After")),
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Answer(unreachable=f"{type(error).__name__}: {error}".rstrip(": "))


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds; dates are ignored."""
    return float(retry_after) if retry_after is not None and retry_after.isdigit() else None
