# SPDX-License-Identifier: Apache-2.0
"""What an environment says about Argo Workflows: how people log in to its server."""

from typing import Annotated

from pydantic import Field
from tuneyard_api.base import Contract, ObjectName

HttpsUrl = Annotated[
    str, Field(pattern=r"^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$", max_length=512)
]
Scope = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/-]+$", max_length=128)]


class SingleSignOn(Contract):
    """Login by OpenID Connect, beside the tokens of Kubernetes."""

    issuer: HttpsUrl
    """Root URL of the issuer. Example: `https://login.example.com/realms/lab`."""
    url: HttpsUrl
    """Address at which browsers reach Argo's server, without a slash at the end. The issuer must allow
    `<url>/oauth2/callback`. Example: `https://workflows.lab.example.com`."""
    secret: ObjectName = "argo-server-sso"  # noqa: S105  the name of a Secret
    """Secret in the namespace `argo` with the keys client-id and client-secret."""
    groups_claim: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]+$", max_length=128)] = "groups"
    """Claim of the issuer's token with the groups of a person."""
    scopes: Annotated[tuple[Scope, ...], Field(max_length=8)] = ("groups",)
    """Scopes that are asked for besides openid; the groups must come with one of them."""
    session_hours: Annotated[int, Field(ge=1, le=168)] = 10
    """Hours after which people log in again."""


class Workflows(Contract):
    """Argo Workflows. Its server is never open: without `singleSignOn` people log in with a token of Kubernetes."""

    single_sign_on: SingleSignOn | None = None
    """Absent: people log in with a token of Kubernetes only."""
