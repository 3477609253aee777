# SPDX-License-Identifier: Apache-2.0
"""Addresses that nobody else has: ports on loopback, and (for real nodes) networks without a route."""

from __future__ import annotations

import ipaddress
import random
import socket
from collections.abc import Iterable

from tuneyard_local.errors import ClusterError

PORTS = range(20000, 30000)
"""Below the ports that Linux hands out by itself (32768 and up): no passing connection takes them."""


def is_free_port(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        # Connections of a server that was just ended may linger; they hinder nobody who listens anew.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen()
        except OSError:
            return False
    return True


def pick_ports(names: Iterable[str], rng: random.Random) -> dict[str, int]:
    """A free loopback port for each name. Who loses a race for one fails at start, aloud."""
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


def pick_networks(count: int, taken: Iterable[Network], rng: random.Random) -> list[Network]:
    """So many /16 networks out of 10.64.0.0 to 10.191.0.0 that overlap nothing in `taken`."""
    used = list(taken)
    free = [
        network
        for second in range(64, 192)
        if not any((network := Network(f"10.{second}.0.0/16")).overlaps(other) for other in used)
    ]
    if len(free) < count:
        raise ClusterError(
            f"{count} free /16 networks are needed between 10.64.0.0 and 10.191.255.255 (got {len(free)})"
        )
    return sorted(rng.sample(free, count))
