# SPDX-License-Identifier: Apache-2.0
"""End-to-end tests that do harm use what the tests of faults use."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "faults" / "harness"))
