# SPDX-License-Identifier: Apache-2.0
"""Writes what a published adapter or model has besides its weights: its card and its publishers."""
