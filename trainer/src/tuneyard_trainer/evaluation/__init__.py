# SPDX-License-Identifier: Apache-2.0
"""Base model against tuned model: their answers and their scores."""
