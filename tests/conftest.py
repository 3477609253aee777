# SPDX-License-Identifier: Apache-2.0
"""What all tests share: the tiers, and the clusters that the tests of a session use together."""

import sys
from pathlib import Path

# Tests are no package (import-mode=importlib), and only this file may name plugins: so it says where they lie.
sys.path.insert(0, str(Path(__file__).parent / "plugins"))

pytest_plugins = ["tier_selection", "side_by_side", "cluster_fixtures"]
