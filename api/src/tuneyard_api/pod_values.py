# SPDX-License-Identifier: Apache-2.0
"""Validates values of a pod as Kubernetes does, so that they are refused at once, not after the data is prepared."""

from typing import Annotated

from pydantic import Field

from tuneyard_api import job_rules

LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
CONFIG_KEY = r"^([-_A-Za-z0-9]|\.[-_A-Za-z0-9])[-._A-Za-z0-9]*$"
"""Key of a Secret or ConfigMap: a file can be made of it, so `.` and what begins with `..` are none."""
_PATH = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
IMAGE = rf"^([A-Za-z0-9.-]+(:[0-9]+)?/)?{_PATH}(/{_PATH})*([:@][A-Za-z0-9_.:@-]*)?$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
MOUNT_PATH = r"^/[A-Za-z0-9._/-]*$"
CPU = r"^([0-9]*[1-9][0-9]*(\.[0-9]+)?m?|0+\.[0-9]{0,2}[1-9][0-9]*)$"
"""An amount of CPU, at least 1m: Kubernetes counts nothing smaller."""
MEMORY = r"^([0-9]*[1-9][0-9]*(\.[0-9]+)?|0+\.[0-9]*[1-9][0-9]*)(k|Ki|M|Mi|G|Gi|T|Ti)?$"
"""More than 0, which as a limit means none."""

LabelValue = Annotated[str, Field(max_length=63, pattern=LABEL_VALUE)]
"""Value of a label or taint; may be empty."""
NodeLabels = Annotated[dict[str, LabelValue], Field(max_length=32), job_rules.LABEL_KEYS]
"""Labels that a node must have."""
TaintKey = Annotated[str, Field(min_length=1, max_length=317), job_rules.TAINT_KEY]
ConfigKey = Annotated[str, Field(min_length=1, max_length=253, pattern=CONFIG_KEY)]
ImageName = Annotated[str, Field(min_length=1, max_length=512, pattern=IMAGE)]
ResourceName = Annotated[str, Field(min_length=1, max_length=128), job_rules.EXTENDED_RESOURCE]
"""An extended resource such as `nvidia.com/gpu`."""
CpuQuantity = Annotated[str, Field(min_length=1, max_length=32, pattern=CPU)]
MemoryQuantity = Annotated[str, Field(min_length=1, max_length=32, pattern=MEMORY)]
