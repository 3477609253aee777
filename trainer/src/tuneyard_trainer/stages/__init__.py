# SPDX-License-Identifier: Apache-2.0
"""The stages of a job, one function each: what a pod does."""
