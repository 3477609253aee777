# SPDX-License-Identifier: Apache-2.0
"""Resolves an environment: its components and their needs, providers and pins, and the order. Pure."""
