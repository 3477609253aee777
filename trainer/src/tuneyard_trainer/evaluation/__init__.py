# SPDX-License-Identifier: Apache-2.0
"""Compares the base model with the tuned model: their answers and their scores."""
