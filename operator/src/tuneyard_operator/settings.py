# SPDX-License-Identifier: Apache-2.0
"""Every setting of the operator, once: flag, environment variable, default, and what happens past it.

A field `workers` is the flag `--workers` and the variable `TUNEYARD_OPERATOR_WORKERS`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

ENV_PREFIX = "TUNEYARD_OPERATOR"


class Settings(BaseModel):
    """How this process runs; settings of jobs are in their FineTuneRuntime."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    host: str = "0.0.0.0"  # noqa: S104  the kubelet and Prometheus come from other machines
    """Address of the port for probes and metrics."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """Port of /healthz, /readyz and /metrics; 0 takes a free one and logs it."""
    workers: Annotated[int, Field(ge=1, le=256)] = 32
    """FineTuneJobs worked on at once, and so API requests under way; more only loads the API server."""
    resync_seconds: Annotated[float, Field(ge=5, le=86_400)] = 300.0
    """Seconds between comparisons of the watches with lists; this bounds how long a lost deletion goes unnoticed."""
    watch_seconds: Annotated[int, Field(ge=5, le=3600)] = 300
    """Length of one watch request; the client gives up on a silent one 10 s later."""
    stuck_seconds: Annotated[float, Field(ge=30, le=3600)] = 300.0
    """A pass that takes longer makes /healthz fail, so that the kubelet restarts the operator."""
    lease_seconds: Annotated[float, Field(ge=1, le=300)] = 15.0
    """Duration of the lease: how long others wait for a replica that died; it is renewed every 2/15 of that."""
    service_token_file: str = ""
    """File with the bearer token for services that train, such as NeMo Customizer; empty: they ask for none."""
    identity: str = ""
    """Name of this replica in the lease; empty: the host's name, which in a pod is the pod's."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged. Only warnings of kopf are logged, unless this is debug."""
