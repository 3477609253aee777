# SPDX-License-Identifier: Apache-2.0
"""Chart repositories for Argo CD: those that a stack pulls from, and the Secret of a private one."""

from tuneyard.environment.model import Environment
from tuneyard.stack.model import ExpectedSecret, Stack
from tuneyard.stack.pins import Pin

SECRET_TYPE = "argocd.argoproj.io/secret-type"  # noqa: S105  a label


def chart_repository(environment: Environment, pin: Pin) -> str:
    """The pin's repository, or the environment's mirror of all charts."""
    return environment.registries.charts or pin.repository


def repository_secret_name(environment: Environment, url: str) -> str:
    """A DNS label for the Secret of a repository."""
    plain = url.rsplit("://", maxsplit=1)[-1].strip("/").lower()
    name = "".join(c if c.isalnum() else "-" for c in plain)
    return f"{environment.name}-repository-{name}"[:63].rstrip("-")


def private_repository(stack: Stack, component: str) -> list[ExpectedSecret]:
    """The Secret of a component's private repository; None when a mirror replaces it.

    No public Secret is rendered for the same URL: of two, Argo CD would take either.
    """
    environment, pin = stack.environment, stack.pin(component)
    if environment.registries.charts or not pin.private:
        return []
    purpose = f"chart repository {pin.repository}: type helm, username $oauthtoken, password the NGC key; label {SECRET_TYPE}=repository"
    keys = ("type", "name", "url", "username", "password")
    name = repository_secret_name(environment, pin.repository)
    return [
        ExpectedSecret(
            name, environment.argocd.namespace, keys, purpose, labels=((SECRET_TYPE, "repository"),)
        )
    ]
