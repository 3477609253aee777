# SPDX-License-Identifier: Apache-2.0
"""What all tests share: the tiers, and the clusters that the tests of a session use together."""

import os

from hypothesis import settings
from tuneyard_data import pretrained

# Read when PyTorch is loaded. Threads that wait by spinning take the cores from the pods of the tests beside: two
# trainings at once on two cores were measured at less than half of their speed (libgomp of PyTorch 2.13).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# `make test` draws the same examples each time, so that one commit has one result; `make test-all` draws new ones.
# No example has a time limit of its own: on two cores that trainings use too, any of them may have to wait.
settings.register_profile("same examples", derandomize=True, deadline=None)
settings.register_profile("new examples", print_blob=True, deadline=None)
settings.load_profile("new examples" if os.environ.get("TUNEYARD_LONG") else "same examples")

# The commands hide PyTorch from their process, which here is that of all tests.
pretrained.hide_pytorch = lambda: None

pytest_plugins = ["support.tiers", "support.side_by_side", "support.clusters"]
