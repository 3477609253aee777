# SPDX-License-Identifier: Apache-2.0
"""A NeMo Data Store with its Entity Store (generation v1), as jobs name them: to read records there, and to publish there.

A Data Store speaks the protocol of a Hugging Face hub below /v1/hf. What lies in it is listed by the Entity Store, which
a NIM 1.x reads.
"""

from typing import Annotated

from pydantic import Field

from tuneyard_api.base import REVISION, Contract, HttpUrl, VolumePath
from tuneyard_api.remote_files import SecretKey

STORE_REPO = r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$"

ENV_DATA_STORE_TOKEN = "TUNEYARD_DATA_STORE_TOKEN"  # noqa: S105  the name of a variable
"""Token for what a pod writes to a Data Store and its Entity Store: prepare uploads records, publish an adapter or a model."""
ENV_SOURCE_STORE_TOKEN = "TUNEYARD_SOURCE_STORE_TOKEN"  # noqa: S105  the name of a variable
"""Token for the Data Store that a prepare pod reads records from."""


class DataStoreFile(Contract):
    """A file of a data set in a NeMo Data Store."""

    endpoint: HttpUrl
    """Address of the Data Store, such as `http://nemo-data-store.nemo:8000`, without /v1. A job reads one Data Store."""
    repo: Annotated[str, Field(min_length=3, max_length=200, pattern=STORE_REPO)]
    """`namespace/name` of the data set."""
    revision: Annotated[str, Field(min_length=1, max_length=200, pattern=REVISION)] | None = None
    """Branch, tag or commit; absent: `main`."""
    path: VolumePath
    """File inside the data set, ending in .jsonl, .json, either with .gz, or .parquet."""
    secret_ref: SecretKey | None = None
    """Token; only the prepare pod gets it. Absent: the Data Store asks for none."""


class DataStoreRegistry(Contract):
    """A registry in a NeMo Data Store, in the NeMo namespace of the job's namespace.

    Each version is listed by the Entity Store as `<namespace>/<adapter name>@<first twelve digits of its digest>`.
    """

    endpoint: HttpUrl
    """Address of the Data Store, such as `http://nemo-data-store.nemo:8000`, without /v1."""
    entity_store: HttpUrl
    """Address of the Entity Store, such as `http://nemo-entity-store.nemo:8000`, without /v1."""
    secret_ref: SecretKey | None = None
    """Token for both, which only the publish pod gets; absent: they ask for none."""

    def __str__(self) -> str:
        """`Data Store http://nemo-data-store.nemo:8000`."""
        return f"Data Store {self.endpoint}"


class ResolvedDataStore(Contract):
    """The registry of a publish pod."""

    endpoint: HttpUrl
    entity_store: HttpUrl
    base_model: str
    """What the Entity Store calls the base model: the name by which the server lists it, else that of repository or folder."""
