# SPDX-License-Identifier: Apache-2.0
"""Random kills on a local cluster: a seeded order of victims, each killed by SIGKILL and, where it is ours to do, started again."""

import random
import time
from collections import Counter
from collections.abc import Callable

from tuneyard_local import installation
from tuneyard_local.cluster import Cluster

from support.faults.containers import operators, send, trainers
from support.faults.history import History

WEIGHTS = {"trainer": 60, "operator": 18, "kubelet": 12, "apiserver": 7, "etcd": 3}
"""How often each kind of process is chosen, out of 100."""


class Killer:
    """Kills until it has killed so many; `kill` returns the victim, or None when there was none."""

    def __init__(self, cluster: Cluster, history: History, namespace: str, seed: int) -> None:
        self._cluster, self._history, self._namespace = cluster, history, namespace
        self.chance = random.Random(seed)
        self.kills: Counter[str] = Counter()

    def kill(self) -> str | None:
        """One random kill."""
        [kind] = self.chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
        by_kind: dict[str, Callable[[], bool]] = {
            "trainer": self._kill_trainer,
            "operator": self._kill_operator,
            "kubelet": self._kill_kubelet,
            "apiserver": lambda: self._kill_part("kube-apiserver"),
            "etcd": lambda: self._kill_part("etcd"),
        }
        if not by_kind[kind]():
            return None
        self.kills[kind] += 1
        return kind

    def _kill_trainer(self) -> bool:
        """Kill a trainer process of any stage at any moment, such as while it imports PyTorch or writes a checkpoint."""
        running = [
            pod["metadata"]["uid"]
            for pod in self._history.present("Pod")
            if pod["metadata"]["namespace"] == self._namespace and pod["status"].get("phase") == "Running"
        ]
        self.chance.shuffle(running)
        return any(send(trainers(self._cluster, uid)) for uid in running)

    def _kill_operator(self) -> bool:
        """Kill a replica, leading or not, and delete its pod, as the kubelet's back-off takes minutes."""
        pids = operators(self._cluster)
        if not pids or not send([self.chance.choice(pids)]):
            return False
        pods = self._cluster.get(f"/api/v1/namespaces/{installation.SYSTEM_NAMESPACE}/pods") or {"items": []}
        alive = operators(self._cluster)
        for pod in pods["items"]:
            uid = pod["metadata"]["uid"]
            if not any(f"pod{uid}" in _groups(pid) for pid in alive):
                words = (
                    "delete",
                    "pod",
                    pod["metadata"]["name"],
                    "--force",
                    "--grace-period=0",
                    "--wait=false",
                )
                self._cluster.kubectl("-n", installation.SYSTEM_NAMESPACE, *words)
        return True

    def _kill_kubelet(self) -> bool:
        """Kill a kubelet. Containers run on without it, and it finds them after its restart."""
        name = f"kubelet-{self.chance.choice(self._cluster.plan.nodes)}"
        self._cluster.processes.kill(name)
        time.sleep(self.chance.uniform(0, 6))
        self._cluster.processes.start_again(name)
        return True

    def _kill_part(self, name: str) -> bool:
        self._cluster.processes.kill(name)
        time.sleep(self.chance.uniform(0, 3))
        self._cluster.processes.start_again(name)
        self._cluster.wait_until_ready()
        return True


def _groups(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cgroup") as file:  # noqa: PTH123  a path of the kernel's
            return file.read()
    except OSError:
        return ""
