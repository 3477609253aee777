# SPDX-License-Identifier: Apache-2.0
"""Real nodes: containers run, GPUs are counted, claims can be written, names resolve, memory limits bite."""

import json
import socket
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest
from tuneyard_local import machine, native
from tuneyard_local.cluster import Cluster, Plan, this_process
from tuneyard_local.errors import ClusterError
from tuneyard_local.native import NativeCluster, NativeOptions
from tuneyard_local.network import Addresses, Network
from tuneyard_local.progress import Progress, wait_until
from tuneyard_local.records import marked_processes, program_file
from tuneyard_local.status import gather_status, log_files
from tuneyard_local.storage import bind_folder

pytestmark = pytest.mark.e2e

GPU = "nvidia.com/gpu"


@pytest.fixture(scope="session")
def python(cluster: NativeCluster) -> str:
    return cluster.load_images("python")["python"]


def build_pod(namespace: str, name: str, image: str, script: str, **more: Any) -> dict[str, Any]:
    """A pod that the restricted profile admits; `more` may hold limits, volumes, mounts and spec."""
    container = {
        "name": "main",
        "image": image,
        "command": ["python3", "-u", "-c", script],
        "resources": {"limits": more.get("limits", {})},
        "volumeMounts": more.get("mounts", []),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 12345,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": more.get("volumes", []),
        "containers": [container],
        **more.get("spec", {}),
    }
    metadata = {"name": name, "namespace": namespace, "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def pod(cluster: Cluster, namespace: str, name: str) -> dict[str, Any]:
    return cluster.get(f"/api/v1/namespaces/{namespace}/pods/{name}") or {"status": {}}


def wait_for_phase(
    cluster: Cluster, namespace: str, name: str, *phases: str, seconds: float = 180
) -> dict[str, Any]:
    wait_until(
        f"pod {name} to be {' or '.join(phases)}",
        lambda: pod(cluster, namespace, name)["status"].get("phase") in phases,
        seconds,
    )
    return pod(cluster, namespace, name)


def log_of(cluster: Cluster, namespace: str, name: str) -> str:
    return cluster.kubectl("logs", name, "-n", namespace).stdout


def wait_for_success(cluster: Cluster, namespace: str, name: str) -> str:
    done = wait_for_phase(cluster, namespace, name, "Succeeded", "Failed")
    log = log_of(cluster, namespace, name)
    assert done["status"]["phase"] == "Succeeded", log
    return log


def test_pods_become_ready_on_both_nodes(cluster: NativeCluster, restricted: str, python: str) -> None:
    for node in cluster.plan.nodes:
        spec = {"nodeName": node}
        cluster.apply(build_pod(restricted, f"on-{node}", python, "import time; time.sleep(600)", spec=spec))
    for node in cluster.plan.nodes:
        running = wait_for_phase(cluster, restricted, f"on-{node}", "Running")
        assert running["status"]["hostIP"] != running["status"]["podIP"]
    command = ["exec", "-n", restricted, "on-node-1", "--", "python3", "-c", "import os; print(os.getuid())"]
    assert cluster.kubectl(*command).stdout == "12345\n"


def test_the_restricted_profile_is_enforced(cluster: NativeCluster, restricted: str, python: str) -> None:
    root = build_pod(restricted, "root", python, "pass")
    root["spec"]["securityContext"]["runAsUser"] = 0
    with pytest.raises(ClusterError, match="violates PodSecurity"):
        cluster.apply(root)


def test_fake_gpus_are_given_to_pods_and_counted(
    cluster: NativeCluster, restricted: str, python: str
) -> None:
    def allocatable() -> list[str]:
        return [node["status"]["allocatable"].get(GPU, "0") for node in cluster.get("/api/v1/nodes")["items"]]

    # A kubelet that was killed by a test before this one may just be counting them again.
    wait_until("all GPUs of three nodes", lambda: allocatable() == ["8", "8", "8"], 120)
    script = "import os; print(len(set(os.environ['NVIDIA_VISIBLE_DEVICES'].split(','))))"
    cluster.apply(build_pod(restricted, "six", python, script, limits={GPU: "6"}))
    assert wait_for_success(cluster, restricted, "six") == "6\n"


def test_a_pod_that_asks_for_more_gpus_than_any_node_has_waits_with_the_reason(
    cluster: NativeCluster, restricted: str, python: str
) -> None:
    cluster.apply(build_pod(restricted, "nine", python, "pass", limits={GPU: "9"}))

    def verdict() -> tuple[str, str]:
        conditions = pod(cluster, restricted, "nine")["status"].get("conditions", [])
        found = (each for each in conditions if each["type"] == "PodScheduled")
        return next(((each.get("reason", ""), each.get("message", "")) for each in found), ("", ""))

    # A node that comes back just now lacks something else until the scheduler looks again.
    words = "3 Insufficient nvidia.com/gpu"
    wait_until("the scheduler's verdict on all nodes", lambda: words in verdict()[1], 120)
    assert verdict()[0] == "Unschedulable"


def test_a_sick_gpu_is_taken_out_of_the_count(cluster: NativeCluster) -> None:
    sick = cluster.folder.node("node-1") / "sick-gpus"

    def allocatable() -> str:
        return str(cluster.get("/api/v1/nodes/node-1")["status"]["allocatable"][GPU])

    sick.write_text("3 5")
    try:
        wait_until("two GPUs to go", lambda: allocatable() == "6", 120)
    finally:
        sick.unlink()
    wait_until("them to come back", lambda: allocatable() == "8", 120)


def test_a_claim_is_shared_by_restricted_pods_of_both_nodes_and_deleted_with_its_files(
    cluster: NativeCluster, restricted: str, python: str
) -> None:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": "shared", "namespace": restricted}
    cluster.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "shared"}}]
    mounts = [{"name": "v", "mountPath": "/data"}]
    for name, node, script in (
        ("writer", "node-0", "open('/data/x','w').write('from node-0')"),
        ("reader", "node-1", "print(open('/data/x').read())"),
    ):
        more = {
            "volumes": volumes,
            "mounts": mounts,
            "spec": {"nodeSelector": {"kubernetes.io/hostname": node}},
        }
        cluster.apply(build_pod(restricted, name, python, script, **more))
        log = wait_for_success(cluster, restricted, name)
    assert log == "from node-0\n"
    claim = cluster.get(f"/api/v1/namespaces/{restricted}/persistentvolumeclaims/shared")
    folder = cluster.folder.volumes / claim["spec"]["volumeName"]
    assert (folder / "x").read_text() == "from node-0"
    cluster.kubectl("delete", "pod", "writer", "reader", "-n", restricted)
    cluster.kubectl("delete", "pvc", "shared", "-n", restricted)
    wait_until("the files to go", lambda: not folder.exists(), 120)


def test_a_folder_of_the_machine_is_bound_read_only(
    cluster: NativeCluster, restricted: str, python: str, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir(mode=0o777)
    (tmp_path / "model" / "weights").write_text("42")
    tmp_path.chmod(0o755)
    bind_folder(cluster, restricted, "model", tmp_path / "model", read_only=True)
    script = """
import errno
print(open("/model/weights").read())
try:
    open("/model/mine", "w")
except OSError as error:
    print(errno.errorcode[error.errno])
"""
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "model", "readOnly": True}}]
    mounts = [{"name": "v", "mountPath": "/model"}]
    cluster.apply(build_pod(restricted, "reader", python, script, volumes=volumes, mounts=mounts))
    assert wait_for_success(cluster, restricted, "reader") == "42\nEROFS\n"


def test_two_pods_find_each_other_by_headless_names_and_a_service_is_reached_from_here(
    cluster: NativeCluster, restricted: str, python: str
) -> None:
    metadata = {"name": "duo", "namespace": restricted}
    headless = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"app": "first"}}
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": headless})
    ports = {"selector": {"app": "first"}, "ports": [{"port": 80, "targetPort": 8000}]}
    front = {"name": "front", "namespace": restricted}
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": front, "spec": ports})
    serve = "import http.server as h; h.HTTPServer(('', 8000), h.SimpleHTTPRequestHandler).serve_forever()"
    ask = f"""
import time, urllib.request
def status(url):
    for _ in range(600):
        try:
            return urllib.request.urlopen(url, timeout=2).status
        except OSError:
            time.sleep(0.2)
print(status("http://first.duo:8000/"), status("http://front.{restricted}.svc.cluster.local/"))
"""
    named = {"hostname": "first", "subdomain": "duo", "nodeName": "node-0"}
    cluster.apply(build_pod(restricted, "first", python, serve, spec=named))
    cluster.apply(build_pod(restricted, "second", python, ask, spec={"nodeName": "node-1"}))
    assert wait_for_success(cluster, restricted, "second") == "200 200\n"
    address = cluster.get(f"/api/v1/namespaces/{restricted}/services/front")["spec"]["clusterIP"]
    with urllib.request.urlopen(f"http://{address}/", timeout=30) as answer:
        assert answer.status == 200


def test_pods_reach_this_machine_by_the_link_alone_and_nothing_beyond(
    cluster: NativeCluster, restricted: str, python: str
) -> None:
    inside = Addresses(Network(cluster.plan.pods or "")).host
    interfaces = json.loads(machine.ip("-json", "-4", "address", "show", "up", "scope", "global"))
    outside = next(
        (i["addr_info"][0]["local"] for i in interfaces if not i["ifname"].startswith("tuneyard-")), None
    )
    if outside is None:
        pytest.skip("this machine has no network but ours")
    script = """
import socket, sys
for address in sys.argv[2:]:
    try:
        socket.create_connection((address, int(sys.argv[1])), timeout=3)
        print("reached")
    except OSError:
        print("cut off")
"""
    with socket.create_server(("0.0.0.0", 0)) as server:  # noqa: S104 - both addresses lead here
        caged = build_pod(restricted, "caged", python, script)
        caged["spec"]["containers"][0]["command"] += [str(server.getsockname()[1]), inside, outside]
        cluster.apply(caged)
        assert wait_for_success(cluster, restricted, "caged") == "reached\ncut off\n"


def test_a_pod_over_its_memory_limit_is_oom_killed(
    cluster: NativeCluster, restricted: str, python: str
) -> None:
    cluster.apply(
        build_pod(restricted, "hungry", python, "x = bytearray(512 << 20)", limits={"memory": "64Mi"})
    )
    ended = wait_for_phase(cluster, restricted, "hungry", "Failed")
    state = ended["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (state["reason"], state["exitCode"]) == ("OOMKilled", 137)


def test_a_killed_kubelet_comes_back_and_gives_out_gpus_again(
    cluster: NativeCluster, restricted: str, python: str
) -> None:
    plugin = cluster.processes.log("device-plugin-node-1")

    def registrations() -> int:
        return plugin.read_text().count("registered 8")

    before = registrations()
    cluster.processes.kill("kubelet-node-1")
    assert not gather_status(cluster).is_healthy
    cluster.processes.start_again("kubelet-node-1")
    wait_until("the plugin to register anew", lambda: registrations() > before, 180)
    wait_until("its GPUs", lambda: native.has_gpus(cluster, cluster.plan), 180)
    # The node's status still shows the GPUs from before: until the kubelet has heard of them anew it refuses the pod
    # (UnexpectedAdmissionError), and the Job controller makes another one.
    chosen = {"nodeSelector": {"kubernetes.io/hostname": "node-1"}}
    made = build_pod(restricted, "all", python, "pass", limits={GPU: "8"}, spec=chosen)
    template = {"metadata": {"labels": made["metadata"]["labels"]}, "spec": made["spec"]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": made["metadata"]}
    cluster.apply({**job, "spec": {"backoffLimit": 3, "template": template}})
    path = f"/apis/batch/v1/namespaces/{restricted}/jobs/all"
    wait_until("its Job", lambda: (cluster.get(path) or {}).get("status", {}).get("succeeded") == 1, 240)
    assert gather_status(cluster).is_healthy


def test_status_and_logs_name_what_there_is(cluster: NativeCluster) -> None:
    status = gather_status(cluster)
    assert [(node.name, node.is_ready, node.gpus) for node in status.nodes] == [
        ("node-0", True, "8"),
        ("node-1", True, "8"),
        ("node-2", True, "8"),
    ]
    assert all(component.memory_mib > 0 for component in status.components)
    assert [path.name for path in log_files(cluster, "node-0")][:2] == [
        "containerd-node-0.log",
        "kubelet-node-0.log",
    ]
    with pytest.raises(ClusterError, match=r"no logs of 'nobody'.*kube-apiserver"):
        log_files(cluster, "nobody")


def test_a_second_cluster_beside_it_leaves_nothing_and_hurts_nothing(cluster: NativeCluster) -> None:
    rules = machine.run_in((), "/usr/sbin/nft", "list", "ruleset")
    name = f"beside-{uuid.uuid4().hex[:6]}"
    with native.running(name, NativeOptions(nodes=1, gpus=2), Progress(is_quiet=True)) as other:
        plan = other.plan
        assert plan.pods != cluster.plan.pods
        image = other.load_images("python")["python"]
        other.apply(build_pod("default", "left", image, "import time; time.sleep(600)", limits={GPU: "2"}))
        wait_for_phase(other, "default", "left", "Running")
        assert set(traces(other, plan)) == {"processes", "shims", "link", "routes", "cgroups", "folder"}
        assert machine.run_in((), "/usr/sbin/nft", "list", "ruleset") == rules
        other.processes.kill("kubelet-node-0")  # down must not need the kubelet
    wait_until_gone(other, plan)
    assert gather_status(cluster).is_healthy


def test_down_ends_what_was_left_half_made(cluster: NativeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"half-{uuid.uuid4().hex[:6]}"

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tuneyard_local.native.storage.start_provisioner", crash)
    with pytest.raises(KeyboardInterrupt):
        native.up(name, NativeOptions(nodes=1, gpus=1), Progress(is_quiet=True), owner=this_process())
    half = NativeCluster(name)
    plan = half.plan
    assert "processes" in traces(half, plan)
    next(
        half.folder.processes.glob("kubelet*.json")
    ).unlink()  # started, but killed before it was written down
    half.down()
    wait_until_gone(half, plan)


def wait_until_gone(cluster: Cluster, plan: Plan) -> None:
    """Nothing of it is to be seen; the kernel takes links and routes down some time after their namespace."""
    assert set(traces(cluster, plan)) <= {"link", "routes"}
    try:
        wait_until("nothing to be left", lambda: traces(cluster, plan) == [], 60)
    except ClusterError as error:
        raise AssertionError(f"{error}: {traces(cluster, plan)} left") from error


def traces(cluster: Cluster, plan: Plan) -> list[str]:
    """What of one cluster is still to be seen on the machine."""
    routes = [r["dst"] for r in json.loads(machine.ip("-json", "-4", "route", "show", "table", "all"))]
    marked = marked_processes(cluster.folder.root)
    seen = {
        "processes": marked,
        "shims": [pid for pid in marked if "containerd-shim" in (program_file(pid) or "")],
        "link": machine.has_link(plan.link or ""),
        "routes": [dst for dst in routes if dst in {plan.pods, plan.services}],
        "cgroups": [h for h in machine.cgroup_hierarchies() if Path(f"{h}{plan.cgroup}").exists()],
        "mounts": machine.mounts_below(cluster.folder.root),
        "folder": cluster.folder.root.exists(),
    }
    return [name for name, found in seen.items() if found]
