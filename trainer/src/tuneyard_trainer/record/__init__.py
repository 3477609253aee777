# SPDX-License-Identifier: Apache-2.0
"""What is kept of a job beside its adapter when the workspace is gone: metrics, answers, findings in the data, a report."""
