# SPDX-License-Identifier: Apache-2.0
"""The training loop, its batches, its checkpoints, and its processes."""
