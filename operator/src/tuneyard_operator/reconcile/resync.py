# SPDX-License-Identifier: Apache-2.0
"""Compares the store with the cluster: once before anything is decided, then every few minutes.

A watch that reconnects may lose a deletion. Without this, a job whose pod vanished in that moment would be waited
for until the operator is restarted.
"""

from tuneyard_operator.ports import Cluster, Watched
from tuneyard_operator.reconcile.store import Store

ORDER: tuple[Watched, ...] = ("FineTuneRuntime", "FineTuneJob", "Job", "Pod")
"""Parents before children: a Job that status names and that a later list lacks is really gone."""


async def resync(cluster: Cluster, store: Store) -> None:
    """Bring the store up to date, kind by kind.

    Raises:
        ClusterError: when a list request fails; what was read so far is kept.
    """
    for kind in ORDER:
        present: set[tuple[str, str]] = set()
        version = 0
        async for page in cluster.pages(kind):
            version = page.version
            for body in page.objects:
                present.add((body["metadata"].get("namespace", ""), body["metadata"]["name"]))
                store.put(kind, body)
        store.drop_absent(kind, present, version)
