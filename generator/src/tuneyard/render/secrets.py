# SPDX-License-Identifier: Apache-2.0
"""The list of secrets that an environment expects: names, keys and purposes, never a value."""

from tuneyard.render.files import HEADER
from tuneyard.stack.model import Stack

_HOW = {
    "manual": "Create each of these before the roots are applied, for example with `kubectl create secret`.",
    "sealed-secrets": "Seal each of these with `kubeseal` and commit the SealedSecret outside of the generated folders.",
    "external-secrets": "ExternalSecrets are rendered for all of these; the store must hold the keys named here.",
}


def secrets_page(stack: Stack) -> str:
    """manifests/<env>/secrets.md."""
    environment = stack.environment
    store = environment.secrets.store
    prefix = f"{store.prefix}/" if store and store.prefix else ""
    remote = environment.secrets.provider == "external-secrets"
    head = "| namespace | secret | keys | type | for |" + (" remote key |" if remote else "")
    rule = "| --- | --- | --- | --- | --- |" + (" --- |" if remote else "")
    rows = [
        f"| {s.namespace} | {s.name} | {', '.join(s.keys)} | {s.type} | {s.purpose} |"
        + (f" {prefix}{s.name} |" if remote else "")
        for s in stack.secrets()
    ]
    lines = [
        f"<!-- {HEADER.format(name=environment.name)} -->",
        f"# Secrets that {environment.name} expects",
        "",
        _HOW[environment.secrets.provider],
        "A secret that is listed for several namespaces has the same content in each.",
        "",
        head,
        rule,
        *rows,
    ]
    return "\n".join(lines) + "\n"
