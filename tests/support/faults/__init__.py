# SPDX-License-Identifier: Apache-2.0
"""Faults on a real API server or on real nodes, the record of what happened, and the judge of it."""
