# SPDX-License-Identifier: Apache-2.0
"""What talks to a cluster, behind the extra `tuneyard[cluster]`: one client, and pure judgements of what it reads."""
