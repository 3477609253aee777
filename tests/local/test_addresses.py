# SPDX-License-Identifier: Apache-2.0
"""Addresses are picked so that nothing on the machine is hidden or shared."""

import random
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuneyard_local.errors import ClusterError
from tuneyard_local.network import PORTS, Addresses, Network, is_free_port, pick_networks, pick_ports

NETWORKS = st.builds(
    lambda a, b, prefix: Network((f"{a}.{b}.0.0", prefix), strict=False),
    st.integers(1, 223), st.integers(0, 255), st.integers(8, 24),
)  # fmt: skip


@given(taken=st.lists(NETWORKS, max_size=20), seed=st.integers())
def test_picked_networks_overlap_neither_routes_nor_each_other(taken: list[Network], seed: int) -> None:
    try:
        pods, services = pick_networks(2, taken, random.Random(seed))
    except ClusterError:
        assert sum(network.num_addresses for network in taken) > 1 << 20, "refused though nearly all is free"
        return
    assert not pods.overlaps(services)
    assert not any(picked.overlaps(other) for picked in (pods, services) for other in taken)
    assert all(picked.is_private and picked.prefixlen == 16 for picked in (pods, services))


def test_a_machine_without_a_free_private_network_is_named() -> None:
    with pytest.raises(ClusterError, match="2 free /16 networks are needed"):
        pick_networks(2, [Network("10.0.0.0/8")], random.Random(0))


@given(st.integers(0, 19))
def test_no_pod_has_the_address_of_a_node_or_of_the_gateway(index: int) -> None:
    addresses = Addresses(Network("10.80.0.0/16"))
    first, last = addresses.pod_range(index)
    others = {addresses.gateway, addresses.host, *(addresses.node(node) for node in range(20))}
    assert len(others) == 22
    assert all(
        Network(first + "/24", strict=False) != Network(other + "/24", strict=False) for other in others
    )
    assert Network(first + "/24", strict=False) == Network(last + "/24", strict=False)


def test_ports_are_free_distinct_and_never_one_that_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not is_free_port(server.getsockname()[1])
    ports = pick_ports(("a", "b", "c"), random.Random(7))
    assert len(set(ports.values())) == 3
    assert all(port in PORTS and is_free_port(port) for port in ports.values())


def test_a_port_that_is_taken_is_passed_over() -> None:
    first = pick_ports(("a",), random.Random(11))["a"]
    with socket.create_server(("127.0.0.1", first)):
        assert pick_ports(("a",), random.Random(11))["a"] != first
