# SPDX-License-Identifier: Apache-2.0
"""Kubernetes quantities such as `500m` and `4Gi` as numbers, as far as the contract takes them (`base.QUANTITY`)."""

from decimal import Decimal

_UNITS = {
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGT", 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGT", 1)},
}


def quantity_value(quantity: str) -> Decimal:
    """The number of a quantity: cores of CPU, bytes of memory."""
    unit = quantity.lstrip("0123456789.")
    return Decimal(quantity.removesuffix(unit)) * _UNITS.get(unit, 1)
