# SPDX-License-Identifier: Apache-2.0
"""Writes to disk the rendered tree, and the record of which environments need no rendering."""
