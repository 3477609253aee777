# SPDX-License-Identifier: Apache-2.0
"""Reads, checks, renders, tokenises and reports the records of a data set. Without PyTorch, and without a pod."""
