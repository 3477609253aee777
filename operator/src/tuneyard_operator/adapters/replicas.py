# SPDX-License-Identifier: Apache-2.0
"""Finds the ready replicas behind the address of a Service: each holds adapters of its own, so each must be asked."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tuneyard_operator.adapters.kubernetes import KubernetesCluster
from tuneyard_operator.adapters.shared import Shared

_SECONDS = 1.5
"""How long an answer counts: all jobs that wait for one server ask the API server once."""
_SERVICE = re.compile(r"^(?P<name>[a-z0-9-]+)\.(?P<namespace>[a-z0-9-]+)(\.svc(\.[a-z0-9.-]+)?)?$")


class Replicas:
    """Looks replicas up in the Service's EndpointSlices."""

    def __init__(self, cluster: KubernetesCluster) -> None:
        self._cluster = cluster
        self._shared = Shared(self._find, _SECONDS)

    async def of(self, endpoint: str) -> tuple[str, ...]:
        """The base URL of each ready replica; `endpoint` itself when it is no Service of the cluster, or has TLS.

        Empty when the Service has no ready replica. A certificate names the Service, and so no pod can be asked by TLS.

        Raises:
            ClusterError: the API server does not say; the Service's own address would answer for one replica only.
        """
        return await self._shared.get(endpoint)

    async def _find(self, endpoint: str) -> tuple[str, ...]:
        url = urlsplit(endpoint)
        place = _SERVICE.match(url.hostname or "")
        if place is None or url.scheme != "http":
            return (endpoint,)
        service = await self._cluster.read("Service", place["namespace"], place["name"])
        if service is None:
            return (endpoint,)
        slices = await self._cluster.endpoint_slices(place["namespace"], place["name"])
        port = port_name(service, url.port or 80)
        return tuple(
            sorted({f"http://{host}{url.path}" for each in slices for host in ready_hosts(each, port)})
        )


def port_name(service: Mapping[str, Any], number: int) -> str:
    """The name of the Service's port of this number; empty for a port without a name, or for none."""
    ports = service["spec"].get("ports") or ()
    return next((str(port.get("name") or "") for port in ports if port["port"] == number), "")


def ready_hosts(endpoint_slice: Mapping[str, Any], port: str) -> list[str]:
    """`address:port` of each endpoint that is ready; an endpoint that says nothing of it is ready (API reference)."""
    numbers = [each["port"] for each in endpoint_slice.get("ports") or () if (each.get("name") or "") == port]
    return [
        f"[{address}]:{number}" if ":" in address else f"{address}:{number}"
        for endpoint in endpoint_slice.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in endpoint.get("addresses") or ()
        for number in numbers
    ]
