# SPDX-License-Identifier: Apache-2.0
"""Chooses the earlier versions of a name that a registry no longer keeps. Pure: the time comes in as an argument."""

from collections.abc import Iterable
from dataclasses import dataclass

from tuneyard_api.places import RegistryRetention

GRACE_SECONDS = 3600.0
"""A version is in use for this long after a job published it (the job may be about to let the name stand for it) and after
another version took its name (a reader may still copy it)."""
_DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Candidate:
    """A version that its name does not stand for."""

    key: str
    """Name of its folder."""
    left_at: float
    """Unix time at which another version took its name, in seconds."""
    is_marked: bool
    """Whether a job published it within GRACE_SECONDS."""


def to_retire(earlier: Iterable[Candidate], retention: RegistryRetention, now: float) -> list[str]:
    """The keys of the versions that are neither among the latest `keep_versions` nor younger than `keep_days`."""
    oldest = now - max(retention.keep_days * _DAY_SECONDS, GRACE_SECONDS)
    latest_first = sorted(earlier, key=lambda each: (each.left_at, each.key), reverse=True)
    beyond = latest_first[retention.keep_versions :]
    return [each.key for each in beyond if each.left_at <= oldest and not each.is_marked]
