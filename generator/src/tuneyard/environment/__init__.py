# SPDX-License-Identifier: Apache-2.0
"""The one file that a platform engineer writes: its model, how it is read, and where each value came from."""
