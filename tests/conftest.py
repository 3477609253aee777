# SPDX-License-Identifier: Apache-2.0
"""What all tests share: the tiers, and the clusters that the tests of a session use together."""

pytest_plugins = ["support.tiers", "support.side_by_side", "support.clusters"]
