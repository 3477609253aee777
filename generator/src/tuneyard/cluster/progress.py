# SPDX-License-Identifier: Apache-2.0
"""The progress of an installation: each wave and Application, the resource that blocks it, and since when. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

Json = Mapping[str, Any]
WAVE = "argocd.argoproj.io/sync-wave"
_BAD = {"Degraded": 0, "Missing": 1, "Unknown": 2, "Progressing": 3, "Suspended": 4}


@dataclass(frozen=True)
class Progress:
    """One Application of the environment."""

    wave: int
    name: str
    sync: str
    health: str
    blocker: str = ""
    """`<kind>/<name>` of the resource that keeps it from being ready."""
    message: str = ""
    since_s: int | None = None
    """Seconds since its state last changed; None: unknown."""

    @property
    def is_ready(self) -> bool:
        """Whether this Application lets the next wave start."""
        return self.sync == "Synced" and self.health == "Healthy"


def progress_of(applications: Iterable[Json], now: datetime) -> list[Progress]:
    """Progress of each Application, by wave, then name; a root without a wave comes first."""
    return sorted((_progress(entry, now) for entry in applications), key=lambda p: (p.wave, p.name))


def _progress(entry: Json, now: datetime) -> Progress:
    metadata, status = entry["metadata"], entry.get("status", {})
    wave = int(metadata.get("annotations", {}).get(WAVE, -1))
    health = status.get("health", {})
    operation = status.get("operationState", {})
    is_done = health.get("status") == "Healthy" and status.get("sync", {}).get("status") == "Synced"
    blocker, message = ("", "") if is_done else _blocker(status)
    moment = health.get("lastTransitionTime") or operation.get("startedAt")
    if not is_done and operation.get("phase") in ("Running", "Failed", "Error"):
        moment = operation.get("finishedAt") or operation.get("startedAt") or moment
    since = int((now - datetime.fromisoformat(moment)).total_seconds()) if moment else None
    return Progress(
        wave, metadata["name"], status.get("sync", {}).get("status", "Unknown"), health.get("status", "Missing"),
        blocker, message, since,
    )  # fmt: skip


def _blocker(status: Json) -> tuple[str, str]:
    """The worst resource, else the failed operation's own result, else a condition, else the operation's message."""
    resources = [r for r in status.get("resources", ()) if r.get("health", {}).get("status") in _BAD]
    if resources:
        worst = min(resources, key=lambda r: (_BAD[r["health"]["status"]], r["kind"], r["name"]))
        return f"{worst['kind']}/{worst['name']}", str(
            worst["health"].get("message", worst["health"]["status"])
        )
    operation = status.get("operationState", {})
    for result in operation.get("syncResult", {}).get("resources", ()):
        if result.get("status") == "SyncFailed" or result.get("hookPhase") in ("Failed", "Error"):
            return f"{result['kind']}/{result['name']}", str(result.get("message", ""))
    for condition in status.get("conditions", ()):
        if condition["type"].endswith("Error"):
            return "", f"{condition['type']}: {condition['message']}"
    out = [r for r in status.get("resources", ()) if r.get("status") == "OutOfSync"]
    if out:
        return f"{out[0]['kind']}/{out[0]['name']}", "out of sync"
    return "", str(operation.get("message", ""))


def as_text(rows: Iterable[Progress]) -> str:
    """One line for each Application, with what blocks it on the next."""
    lines = []
    for row in rows:
        mark = "ready  " if row.is_ready else "waiting"
        since = f"  for {duration(row.since_s)}" if row.since_s is not None else ""
        wave = f"wave {row.wave:>2}" if row.wave >= 0 else "root   "
        lines.append(f"{wave}  {mark}  {row.name:<40} {row.sync}/{row.health}{since}")
        if not row.is_ready and (row.blocker or row.message):
            lines.append(f"{'':18}{row.blocker}: {row.message}" if row.blocker else f"{'':18}{row.message}")
    return "".join(f"{line}\n" for line in lines)


def as_rows(rows: Iterable[Progress]) -> list[dict[str, Any]]:
    """The rows as data for JSON."""
    return [asdict(row) | {"ready": row.is_ready} for row in rows]


def duration(seconds: int) -> str:
    """`2h05m`, `3m20s`, `12s`."""
    minutes, rest = divmod(max(seconds, 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
