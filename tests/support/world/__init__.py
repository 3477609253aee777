# SPDX-License-Identifier: Apache-2.0
"""A cluster in memory, the operator in it, and what may happen to both."""
