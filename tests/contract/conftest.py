# SPDX-License-Identifier: Apache-2.0
"""The tests of this topic share samples."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "samples"))
