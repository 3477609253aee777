# SPDX-License-Identifier: Apache-2.0
"""Fast computations of a training in PyTorch alone. They know tensors and modules, and nothing of jobs or files."""
