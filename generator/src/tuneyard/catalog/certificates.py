# SPDX-License-Identifier: Apache-2.0
"""cert-manager: certificates of webhooks, first of all the NIM Operator's."""

from tuneyard.stack.model import Component, Json, Stack


def _values(stack: Stack) -> Json:
    """The chart's values.yaml; `imageRegistry` is new in 1.20 and holds for all five images."""
    values: Json = {
        # Kept when the release goes: deleting the CRDs would delete every certificate of the cluster.
        "crds": {"enabled": True, "keep": True},
        "prometheus": {"enabled": True, "servicemonitor": {"enabled": stack.has("metrics")}},
    }
    if stack.environment.registries.mirror:
        values["imageRegistry"] = stack.mirrored("quay.io")
    return values


COMPONENTS = (
    Component(
        name="cert-manager",
        summary="Certificates for webhooks",
        namespace="cert-manager",
        provides=("cert-manager",),
        after=("metrics",),
        values=_values,
        keeps_data=True,
    ),
)
