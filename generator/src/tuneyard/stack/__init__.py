# SPDX-License-Identifier: Apache-2.0
"""What an environment means: components and what they need, pins, who provides what, and the order. Pure."""
