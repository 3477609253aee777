# SPDX-License-Identifier: Apache-2.0
"""Kubernetes objects of a job as plain data, from typed builders; the same job gives the same bytes."""
