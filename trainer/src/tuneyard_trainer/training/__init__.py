# SPDX-License-Identifier: Apache-2.0
"""The training loop, what it is fed with, what it goes on from, and the processes that it runs in."""
