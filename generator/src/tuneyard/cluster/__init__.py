# SPDX-License-Identifier: Apache-2.0
"""Access to a cluster, with the extra `tuneyard[cluster]`: one client, and pure functions that judge what it reads."""
