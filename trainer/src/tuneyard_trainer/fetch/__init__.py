# SPDX-License-Identifier: Apache-2.0
"""What comes over a network, and what the other side may not do to us. Without PyTorch."""
