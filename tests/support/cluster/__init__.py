# SPDX-License-Identifier: Apache-2.0
"""The operator as a process on a real API server, and what it needs there."""
