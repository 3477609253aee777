# SPDX-License-Identifier: Apache-2.0
"""Reads the live port of a training pod. Best effort: a pod that does not answer only shows no progress."""

import logging

import aiohttp
from pydantic import ValidationError
from tuneyard_api.pod_contract import Progress

log = logging.getLogger(__name__)
_TIMEOUT = aiohttp.ClientTimeout(total=2)
_OK = 200
_MAX_BYTES = 65_536


class HttpProgress:
    """The ProgressReader port over HTTP."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def read(self, address: str) -> Progress | None:
        """See `ports.ProgressReader`."""
        try:
            async with self._session.get(address, timeout=_TIMEOUT) as response:
                raw = await response.content.read(_MAX_BYTES)
                return Progress.model_validate_json(raw) if response.status == _OK else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValidationError) as error:
            log.debug("no progress from %s: %s", address, error)
            return None
