# SPDX-License-Identifier: Apache-2.0
"""Vector search: Milvus, or pgvector inside of PostgreSQL."""

from tuneyard.stack.model import Claim, Component, Json, Service, Stack

_USER_CONFIG = """\
etcd:
  use:
    embed: true
  data:
    dir: /var/lib/milvus/etcd
common:
  storageType: local
"""


def _milvus(stack: Stack) -> Json:
    """Standalone with embedded etcd and local storage, as NVIDIA's own installer sets it up for the evaluator.

    https://github.com/zilliztech/milvus-helm/blob/master/charts/milvus/README.md.
    """
    values: Json = {
        "cluster": {"enabled": False},
        "etcd": {"enabled": False},
        "pulsar": {"enabled": False},
        "pulsarv3": {"enabled": False},
        # The templates read minio.tls even when MinIO is off.
        "minio": {"enabled": False, "tls": {"enabled": False}},
        "standalone": {
            "messageQueue": "rocksmq",
            # It would mount an empty folder over the one that has the vectors, so that each restart loses them.
            "disk": {"enabled": False},
            "persistence": {
                "enabled": True,
                "annotations": {"helm.sh/resource-policy": "keep"},
                "persistentVolumeClaim": {
                    "size": f"{stack.volume_gib('milvus', 20)}Gi",
                    "storageClass": stack.storage_class(),
                },
            },
        },
        "extraConfigFiles": {"user.yaml": _USER_CONFIG},
        "metrics": {"serviceMonitor": {"enabled": stack.has("metrics")}},
    }
    if stack.environment.registries.mirror:
        values["image"] = {
            "all": {"repository": stack.mirrored("docker.io/milvusdb/milvus")},
        }
    return values


COMPONENTS = (
    Component(
        name="milvus",
        summary="Vector database, standalone",
        namespace="data",
        provides=("vector-db",),
        after=("metrics",),
        values=_milvus,
        services=lambda _: {"vector-db": Service("milvus", 19530)},
        claims=lambda stack: [Claim(stack.volume_gib("milvus", 20))],
        keeps_data=True,
    ),
    Component(
        name="pgvector",
        summary="Vectors in PostgreSQL: a database with the extension `vector`",
        provides=("vector-db",),
        databases=("pgvector",),
    ),
)
