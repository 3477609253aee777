# SPDX-License-Identifier: Apache-2.0
"""What the programs of a node are told, from the plan of its cluster."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tuneyard_local import machine
from tuneyard_local.cluster import Plan
from tuneyard_local.errors import ClusterError
from tuneyard_local.native import MOST_NODES, NativeOptions, corefile, kube_proxy_config, link_name
from tuneyard_local.network import Addresses, Network
from tuneyard_local.node import cni_config, containerd_config, kubelet_config, processes_of
from tuneyard_local.parts import PARTS, part_digest
from tuneyard_local.paths import ClusterFolder
from tuneyard_local.storage import build_folder_volume

PLAN = Plan(
    mode="native",
    address="10.80.0.1",
    ports={"kube-apiserver": 6443},
    services="10.81.0.0/16",
    pods="10.80.0.0/16",
    nodes=("node-0", "node-1"),
    gpus=8,
    link="tuneyard-1",
    cgroup="/tuneyard-x",
)


@pytest.mark.parametrize("may_lower", [True, False], ids=["with the capability", "without it"])
def test_containerd_restricts_oom_scores_only_where_it_must(may_lower: bool) -> None:
    text = containerd_config(Path("/c/cni"), "localhost/tuneyard/pause:1", may_lower_oom_score=may_lower)
    config = tomllib.loads(text)
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["restrict_oom_score_adj"] is not may_lower
    assert cri["cni"]["conf_dir"] == "/c/cni"
    assert cri["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"] is False
    assert config["grpc"]["address"] == "/run/containerd/containerd.sock"


def test_the_second_nodes_kubelet_has_its_own_address_cgroup_and_certificate() -> None:
    config = json.loads(kubelet_config(PLAN, 1, Path("/pki"), Path("/resolv")))
    assert config["address"] == "10.80.0.12"
    assert config["cgroupRoot"] == "/tuneyard-x/node-1"
    assert config["tlsCertFile"] == "/pki/kubelet-node-1.crt"
    assert config["clusterDNS"] == ["10.80.0.1"]
    assert config["healthzPort"] == 0, "two kubelets share one loopback"
    assert config["authentication"]["anonymous"] == {"enabled": False}


def test_pods_of_two_nodes_share_a_bridge_but_no_address() -> None:
    plugins = [json.loads(cni_config(Addresses(Network("10.80.0.0/16")), i))["plugins"][0] for i in (0, 1)]
    ranges = [plugin["ipam"]["ranges"][0][0] for plugin in plugins]
    assert [plugin["bridge"] for plugin in plugins] == ["pods", "pods"]
    assert [(r["rangeStart"], r["rangeEnd"]) for r in ranges] == [
        ("10.80.1.1", "10.80.1.254"),
        ("10.80.2.1", "10.80.2.254"),
    ]
    assert {r["gateway"] for r in ranges} == {"10.80.0.1"}


def test_kube_proxy_uses_nftables_and_touches_no_conntrack_sysctl() -> None:
    config = json.loads(kube_proxy_config(PLAN, Path("/k")))
    assert config["mode"] == "nftables"
    assert set(config["conntrack"].values()) == {0, "0s"}


def test_coredns_listens_on_the_clusters_address_alone() -> None:
    assert "bind 10.80.0.1\n" in corefile(PLAN.address, Path("/k"))


def test_links_of_two_clusters_differ_and_fit_the_kernels_15_characters() -> None:
    names = {link_name(f"cluster-{i}") for i in range(50)}
    assert len(names) == 50
    assert all(len(name) <= 15 for name in names)


@pytest.mark.parametrize("nodes", [0, MOST_NODES + 1])
def test_a_number_of_nodes_out_of_bounds_is_refused(nodes: int) -> None:
    with pytest.raises(ClusterError, match=f"nodes: 1 to {MOST_NODES} .got {nodes}"):
        NativeOptions(nodes=nodes)


@pytest.mark.parametrize("name", ["", "Up", "a/b", "..", "-a", "a" * 21, "a_b"])
def test_a_cluster_name_that_could_be_a_path_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="cluster name"):
        ClusterFolder(name)


def test_a_nodes_processes_are_named_after_it() -> None:
    assert processes_of("node-0") == ("node-0", "containerd-node-0", "kubelet-node-0", "device-plugin-node-0")


@pytest.mark.parametrize(("read_only", "mode"), [(True, "ReadOnlyMany"), (False, "ReadWriteMany")])
def test_a_bound_folder_is_kept_for_its_one_claim(read_only: bool, mode: str) -> None:
    volume, claim = build_folder_volume("team", "models", Path("/srv/models"), read_only=read_only)
    assert volume["spec"]["claimRef"]["name"] == claim["metadata"]["name"] == "models"
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    assert volume["spec"]["accessModes"] == claim["spec"]["accessModes"] == [mode]
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"


def test_a_part_has_another_digest_with_another_toolchain_or_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuneyard_local.parts.SOURCES", tmp_path)
    part = PARTS["pause"]
    part.source.mkdir()
    (part.source / "main.go").write_text("package main")
    digests = [part_digest(part, "1.26.6"), part_digest(part, "1.26.7")]
    (part.source / "main.go").write_text("package main\n")
    digests.append(part_digest(part, "1.26.6"))
    (part.source / "more.go").write_text("")
    digests.append(part_digest(part, "1.26.6"))
    assert len(set(digests)) == 4


def test_the_last_cluster_gives_the_machine_back_but_not_what_others_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: dict[str, Path] = {name: tmp_path / name.replace("/", ".") for name in machine.CHANGED_SYSCTLS}
    for path in values.values():
        path.write_text("7\n")
    monkeypatch.setattr(machine, "_sysctl", values.__getitem__)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "there").mkdir()
    points = [str(tmp_path / name) for name in ("there", "made", "used")]
    monkeypatch.setattr(machine, "MOUNT_POINTS", points)
    machine.prepare()
    assert machine.missing_mount_points() == []
    assert values[machine.INOTIFY].read_text() == "1024", "the kubelet does not set it"
    (tmp_path / "used" / "file").touch()
    for name, path in values.items():
        path.write_text(machine.CHANGED_SYSCTLS[name])
    values["kernel/panic"].write_text("99")
    machine.prepare()  # a second cluster: the first record counts
    machine.restore()
    left: dict[str, Any] = {name: path.read_text().strip() for name, path in values.items()}
    assert left == {name: "99" if name == "kernel/panic" else "7" for name in values}
    assert machine.missing_mount_points() == [str(tmp_path / "made")]
    assert list((tmp_path / "state" / "tuneyard").iterdir()) == []


def test_a_v2_cgroup_gets_the_controllers_that_its_parent_offers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids rdma\n")
    (tmp_path / "tuneyard-x").mkdir()
    (tmp_path / "tuneyard-x" / "cgroup.controllers").write_text("cpu memory pids\n")
    machine.make_cgroup("/tuneyard-x/node-0")
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (tmp_path / "tuneyard-x" / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (tmp_path / "tuneyard-x" / "node-0").is_dir()
