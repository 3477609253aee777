# SPDX-License-Identifier: Apache-2.0
"""Downloads over a network, guarded against a hostile other side. Without PyTorch."""
