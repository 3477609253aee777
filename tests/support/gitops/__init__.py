# SPDX-License-Identifier: Apache-2.0
"""Argo CD on a real API server, the trees that it follows, and the record of what it wrote in which order."""
