# SPDX-License-Identifier: Apache-2.0
"""What all tests share: the tiers, and the clusters that the tests of a session use together."""

import os

# Read when PyTorch is loaded. Threads that wait by spinning take the cores from the pods of the tests beside: two
# trainings at once on two cores were measured at less than half of their speed (libgomp of PyTorch 2.13).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

pytest_plugins = ["support.tiers", "support.side_by_side", "support.clusters"]
