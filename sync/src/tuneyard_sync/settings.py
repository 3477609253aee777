# SPDX-License-Identifier: Apache-2.0
"""What the container is told: one environment variable for each field, with PREFIX before its name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from tuneyard_api.base import BaseUrl
from tuneyard_api.registry import STATUS_PORT, StoredBase
from tuneyard_api.remote_files import BUCKET, REGION

PREFIX = "TUNEYARD_SYNC_"


class Settings(BaseModel):
    """The registry, the server and the folder between them; exactly one of source_dir and s3_bucket."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    source_dir: Path | None = None
    """Registry on a claim: the folder where it is mounted, read-only."""
    s3_bucket: Annotated[str, Field(pattern=BUCKET)] | None = None
    """Registry in S3: its bucket. Credentials are AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and perhaps AWS_SESSION_TOKEN."""
    s3_prefix: str = ""
    """Prefix of its keys, without a slash at the end."""
    s3_endpoint: BaseUrl | None = None
    """Address of the store; absent: Amazon's."""
    s3_region: Annotated[str, Field(pattern=REGION)] = "us-east-1"
    """Region that requests are signed for."""
    target_dir: Path
    """Folder that the server reads, on a volume of the pod."""
    base_repo: str | None = None
    """Repository of the server's base model. Adapters of other bases are left out."""
    base_revision: str | None = None
    """Revision of that repository; absent: any."""
    base_name: str | None = None
    """Last part of the path of a base model on a claim."""
    base_model: Annotated[str, Field(min_length=1)]
    """Exact string of the server's `--model`; copies have it as base_model_name_or_path."""
    server: Literal["vllm", "nim"]
    """`vllm`: adapters are loaded over HTTP; `nim`: the server looks at the folder by itself."""
    server_port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port of the server on the loopback address."""
    interval_seconds: Annotated[float, Field(gt=0, le=3600)] = 2.0
    """Seconds between two reads of the registry."""
    keep_seconds: Annotated[float, Field(ge=0)] = 600.0
    """Seconds for which a version stays on disk after its name has moved to another one or has gone. The server may still
    answer requests with it, and vLLM 0.32.0 reads such a version again; if its files are gone, its engine ends."""
    status_port: Annotated[int, Field(ge=1, le=65535)] = STATUS_PORT
    """Port of GET /adapters."""

    @model_validator(mode="after")
    def _has_one_registry_and_one_base(self) -> Self:
        if (self.source_dir is None) == (self.s3_bucket is None):
            raise ValueError(f"give exactly one of {PREFIX}SOURCE_DIR and {PREFIX}S3_BUCKET")
        if (self.base_repo is None) == (self.base_name is None):
            raise ValueError(f"give exactly one of {PREFIX}BASE_REPO and {PREFIX}BASE_NAME")
        return self

    @property
    def base(self) -> StoredBase:
        """The base model of the server."""
        return StoredBase(repo=self.base_repo, revision=self.base_revision, name=self.base_name)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """Reads the variables; an empty one counts as absent.

        Raises:
            ValueError: with one line for each variable that is wrong, missing or unknown.
        """
        values = {
            name.removeprefix(PREFIX).lower(): value
            for name, value in environ.items()
            if name.startswith(PREFIX) and value
        }
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            lines = (
                f"{PREFIX}{'_'.join(map(str, problem['loc'])).upper()}: {problem['msg']}".replace(
                    f"{PREFIX}: ", ""
                )
                for problem in error.errors(include_url=False, include_context=False)
            )
            raise ValueError("\n".join(lines)) from None
