# SPDX-License-Identifier: Apache-2.0
"""The fields of spec that can be changed while a job runs; all others are frozen when it starts."""

from collections.abc import Mapping

from pydantic import ValidationError
from tuneyard_api.base import Tolerant
from tuneyard_api.survival import CHANGEABLE, Budget, Deadlines, DeletionPolicy, Retry, Ttl


class LiveSettings(Tolerant):
    """The current values of the fields in `CHANGEABLE`, with the defaults of the CRD."""

    suspend: bool = False
    budget: Budget = Budget()
    retry: Retry = Retry()
    deadlines: Deadlines = Deadlines()
    ttl: Ttl = Ttl()
    deletion_policy: DeletionPolicy = "Retain"


def read_live_settings(spec: Mapping[str, object]) -> LiveSettings:
    """The live settings in a spec from the API server. A field that a newer CRD made unreadable counts as absent."""
    said = {name: spec[name] for name in CHANGEABLE if name in spec}
    try:
        return LiveSettings.model_validate(said)
    except ValidationError as error:
        unreadable = {problem["loc"][0] for problem in error.errors()}
        return LiveSettings.model_validate({name: said[name] for name in said.keys() - unreadable})
