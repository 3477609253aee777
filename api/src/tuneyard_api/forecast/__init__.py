# SPDX-License-Identifier: Apache-2.0
"""What a training will take before any GPU is asked for: memory of each GPU, time, GPU hours. Pure arithmetic."""
