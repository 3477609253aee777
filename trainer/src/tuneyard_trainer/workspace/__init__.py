# SPDX-License-Identifier: Apache-2.0
"""The files that one stage leaves in the workspace for the next one. Without PyTorch."""
