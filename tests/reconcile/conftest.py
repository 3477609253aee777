# SPDX-License-Identifier: Apache-2.0
"""Tests of the operator without a cluster share a small world in memory."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "fakes"))
