# SPDX-License-Identifier: Apache-2.0
"""The one exception that this package raises for problems that a person can fix."""

from __future__ import annotations


class ClusterError(Exception):
    """Something about this machine or the request stands in the way; the message says what to do."""
