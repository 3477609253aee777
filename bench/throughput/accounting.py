# SPDX-License-Identifier: Apache-2.0
"""What a run cost: CPU and memory by process from /proc, API requests from the API server's own counters."""

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_MIB = 1 << 20
_SAMPLE = re.compile(r"^apiserver_request_total\{([^}]*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_IDLE = (3, 4)
"""Fields of the first line of /proc/stat: idle, iowait."""
_NOT_OURS = frozenset({"", "leases", "nodes", "endpointslices", "endpoints", "apiservices"})
"""Resources of the cluster's own heartbeat; "" is health, metrics and discovery."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used so far."""

    cpu_seconds: float
    rss_mb: float
    """Resident memory now, MiB."""
    peak_mb: float
    """Most resident memory ever, MiB."""


def process_usage(pid: int, proc: Path = Path("/proc")) -> Usage:
    """Raises FileNotFoundError when the process is gone."""
    fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    sizes = dict(re.findall(r"(VmHWM|VmRSS):\s+(\d+) kB", (proc / str(pid) / "status").read_text()))
    user, system = int(fields[11]), int(fields[12])
    return Usage(
        (user + system) / _TICKS, int(sizes["VmRSS"]) * 1024 / _MIB, int(sizes["VmHWM"]) * 1024 / _MIB
    )


def machine_busy_seconds(stat: str) -> float:
    """CPU seconds that all of the machine has worked since boot, stolen time included; from /proc/stat's text."""
    # guest time, which follows, is counted in user time already
    fields = [int(field) for field in stat.split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - sum(fields[place] for place in _IDLE)) / _TICKS


def count_requests(metrics: str) -> Counter[str]:
    """Requests by `VERB resource[/subresource]`, without watches and heartbeats; from /metrics' text."""
    counts: Counter[str] = Counter()
    for sample in _SAMPLE.finditer(metrics):
        labels = dict(_LABEL.findall(sample[1]))
        if labels["verb"] in {"WATCH", "CONNECT"} or labels["resource"] in _NOT_OURS:
            continue
        subresource = f"/{labels['subresource']}" if labels.get("subresource") else ""
        counts[f"{labels['verb']} {labels['resource']}{subresource}"] += int(float(sample[2]))
    return counts


def requests_per_job(before: Mapping[str, int], after: Mapping[str, int], jobs: int) -> dict[str, float]:
    """Requests a job by kind of request, most first; what is rarer than one in a hundred jobs is left out."""
    per_job = {kind: round((count - before.get(kind, 0)) / jobs, 2) for kind, count in after.items()}
    return {
        kind: count
        for kind, count in sorted(per_job.items(), key=lambda item: (-item[1], item[0]))
        if count >= 0.01
    }
