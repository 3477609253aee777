# SPDX-License-Identifier: Apache-2.0
"""The pod contract from the inside: what every stage is told, and how it ends. Without PyTorch."""
