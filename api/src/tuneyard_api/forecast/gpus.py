# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's data-centre GPUs by the label `nvidia.com/gpu.product`: memory and speed, from NVIDIA's data sheets.

A product that is not here is no obstacle: its memory is not known, and so nothing is refused because of it.
"""

import re
from dataclasses import dataclass, replace

_SHARED = re.compile(r"-SHARED$")
_MIG = re.compile(r"-MIG-(\d+)g\.(\d+)gb(?:\.me)?$")
_MIG_PARTS = 7


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU."""

    product: str
    """Value of the node label."""
    memory_gib: float | None
    """Memory as nvidia-smi shows it; None if it is not known."""
    teraflops: float
    """Dense products in bfloat16, at the data sheet's clock; of GPUs without bfloat16 in float16 or float32."""
    bandwidth: float
    """Bandwidth of its memory, in TB/s."""
    has_bf16: bool = True
    has_fp8: bool = False
    """Whether it multiplies in FP8 with a scale for each row (Hopper and later)."""
    is_speed_known: bool = True
    """If not, its speed only serves to compare choices."""


_GPUS = (
    Gpu("NVIDIA-B200", 178.4, 2250, 8.0, has_fp8=True),
    Gpu("NVIDIA-H200", 140.4, 989, 4.8, has_fp8=True),
    Gpu("NVIDIA-H200-NVL", 140.4, 835, 4.8, has_fp8=True),
    Gpu("NVIDIA-GH200-480GB", 95.6, 989, 4.0, has_fp8=True),
    Gpu("NVIDIA-H100-80GB-HBM3", 79.6, 989, 3.35, has_fp8=True),
    Gpu("NVIDIA-H100-PCIe", 79.6, 756, 2.0, has_fp8=True),
    Gpu("NVIDIA-H100-NVL", 93.6, 835, 3.9, has_fp8=True),
    Gpu("NVIDIA-A100-SXM4-80GB", 80.0, 312, 2.04),
    Gpu("NVIDIA-A100-80GB-PCIe", 80.0, 312, 1.94),
    Gpu("NVIDIA-A100-SXM4-40GB", 40.0, 312, 1.56),
    Gpu("NVIDIA-A100-PCIE-40GB", 40.0, 312, 1.56),
    Gpu("NVIDIA-L40S", 45.0, 362, 0.864),
    Gpu("NVIDIA-L40", 45.0, 181, 0.864),
    Gpu("NVIDIA-RTX-A6000", 48.0, 155, 0.768),
    Gpu("NVIDIA-A40", 45.0, 150, 0.696),
    Gpu("NVIDIA-A30", 24.0, 165, 0.933),
    Gpu("NVIDIA-A10", 22.5, 125, 0.6),
    Gpu("NVIDIA-A10G", 22.5, 70, 0.6),
    Gpu("NVIDIA-L4", 22.5, 121, 0.3),
    Gpu("Tesla-V100-SXM2-32GB", 32.0, 15.7, 0.9, has_bf16=False),
    Gpu("Tesla-V100-SXM2-16GB", 16.0, 15.7, 0.9, has_bf16=False),
    Gpu("Tesla-T4", 15.0, 8.1, 0.32, has_bf16=False),
)
_BY_PRODUCT = {gpu.product: gpu for gpu in _GPUS}


def products() -> tuple[Gpu, ...]:
    """All that are known, the largest first."""
    return tuple(sorted(_GPUS, key=lambda gpu: (-(gpu.memory_gib or 0), -gpu.teraflops)))


def gpu_of(product: str, memory_gib: float | None = None) -> Gpu:
    """The GPU of a label's value, or the part of it that MIG gives. `memory_gib` says its memory better than a data sheet."""
    part = _MIG.search(product)
    bare = _SHARED.sub("", product[: part.start()] if part else product)
    whole = _BY_PRODUCT.get(bare, Gpu(bare, None, 312, 2.0, is_speed_known=False))
    gpu = whole if part is None or whole.memory_gib is None else _part(whole, int(part[1]), float(part[2]))
    return replace(gpu, product=product, memory_gib=memory_gib or gpu.memory_gib)


def _part(whole: Gpu, parts: int, memory_gib: float) -> Gpu:
    share = memory_gib / (whole.memory_gib or memory_gib)
    return replace(
        whole,
        memory_gib=memory_gib,
        teraflops=whole.teraflops * parts / _MIG_PARTS,
        bandwidth=whole.bandwidth * share,
    )
