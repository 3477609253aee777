# SPDX-License-Identifier: Apache-2.0
"""The pod contract from the inside: the inputs of every stage, and how it ends. Without PyTorch."""
