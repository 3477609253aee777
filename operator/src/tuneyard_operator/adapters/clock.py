# SPDX-License-Identifier: Apache-2.0
"""The Clock port: the one place of the operator that looks at the wall clock."""

from datetime import UTC, datetime


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """See `ports.Clock`."""
        return datetime.now(UTC)
