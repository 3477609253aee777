# SPDX-License-Identifier: Apache-2.0
"""Finds unused addresses: ports on loopback, and (for real nodes) networks without a route."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuneyard_local import machine
from tuneyard_local.errors import ClusterError

PORTS = range(20000, 30000)
"""Ports below those that Linux assigns by itself (32768 and up), so that no other connection takes them."""


def is_free_port(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        # Connections of a server that has just ended may linger; they do not prevent a new server from listening.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen()
        except OSError:
            return False
    return True


def pick_ports(names: Iterable[str], rng: random.Random) -> dict[str, int]:
    """A free loopback port for each name. A server that loses a race for its port fails at start with a message."""
    chosen: dict[str, int] = {}
    for name in names:
        for _ in range(1000):
            port = rng.choice(PORTS)
            if port not in chosen.values() and is_free_port(port):
                chosen[name] = port
                break
        else:
            raise ClusterError(f"no free port for {name} between {PORTS.start} and {PORTS.stop - 1}")
    return chosen


Network = ipaddress.IPv4Network
BRIDGE = "pods"
BRIDGE_MAC = "0a:00:00:00:00:01"
"""Fixed MAC address of the bridge, which would otherwise change as pods come and go. Only the cluster sees it."""


def pick_networks(count: int, taken: Iterable[Network], rng: random.Random) -> list[Network]:
    """`count` /16 networks out of 10.64.0.0 to 10.191.0.0 that overlap nothing in `taken`."""
    used = list(taken)
    candidates = (Network(f"10.{second}.0.0/16") for second in range(64, 192))
    free = [network for network in candidates if not any(network.overlaps(other) for other in used)]
    if len(free) < count:
        raise ClusterError(
            f"{count} free /16 networks are needed between 10.64.0.0 and 10.191.255.255 (got {len(free)})"
        )
    return sorted(rng.sample(free, count))


def taken_networks() -> list[Network]:
    """All networks that this machine has a route to, besides the default route."""
    routes = json.loads(machine.ip("-json", "-4", "route", "show", "table", "all"))
    return [Network(route["dst"]) for route in routes if route["dst"] not in {"default", "0.0.0.0/0"}]


@dataclass(frozen=True)
class Addresses:
    """The addresses in a cluster's own network, a /16 that is one bridge.

    The bridge carries the addresses of gateway, API server and DNS (one) and those of the nodes; the machine
    sits on it at the other end of a link. Pods of node i are at x.y.(i+1).1 to x.y.(i+1).254.
    """

    pods: Network

    def at(self, offset: int) -> str:
        """The address at an offset into the network."""
        return str(self.pods[offset])

    @property
    def gateway(self) -> str:
        """The API server, the DNS server and the pods' gateway."""
        return self.at(1)

    @property
    def host(self) -> str:
        """The machine itself."""
        return self.at(2)

    def node(self, index: int) -> str:
        """A node's own address."""
        return self.at(11 + index)

    def pod_range(self, index: int) -> tuple[str, str]:
        """First and last address for the pods of a node."""
        return self.at((index + 1) * 256 + 1), self.at((index + 1) * 256 + 254)


def build_cluster_network(
    link: str, pods: Network, services: Network, nodes: int, *, enter: Sequence[str]
) -> None:
    """Make the bridge in the network namespace that `enter` leads to, and the machine's link and routes to it.

    No default route leads out of that namespace: pods reach each other, the nodes and this machine, and
    nothing else; and nothing else reaches them.
    """
    addresses = Addresses(pods)
    # Made inside and pushed out, so that the name is the machine's only once the whole link exists.
    inside = [
        f"link add uplink type veth peer name {link} netns {os.getpid()}",
        "link set lo up",
        f"link add {BRIDGE} address {BRIDGE_MAC} type bridge",
        *(
            f"address add {address}/{pods.prefixlen} dev {BRIDGE}"
            for address in (addresses.gateway, *map(addresses.node, range(nodes)))
        ),
        f"link set uplink master {BRIDGE} up",
        f"link set {BRIDGE} up",
    ]
    machine.run_in(enter, "/usr/bin/env", "sh", "-ec", "\n".join(f"ip {words}" for words in inside))
    # Forwarding carries pods to Service addresses; bridged packets must pass the rules so that answers of a
    # pod to a neighbour on the bridge are translated back.
    switches = ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables")
    machine.run_in(
        enter, "/usr/bin/env", "sh", "-ec", "\n".join(f"echo 1 > /proc/sys/{name}" for name in switches)
    )
    machine.ip("address", "add", f"{addresses.host}/{pods.prefixlen}", "dev", link)
    machine.ip("link", "set", link, "up")
    machine.ip("route", "add", str(services), "via", addresses.gateway, "dev", link)
