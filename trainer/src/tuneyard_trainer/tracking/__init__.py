# SPDX-License-Identifier: Apache-2.0
"""Copies the record of a job to an experiment tracker: live while it trains, and whole when it is published."""
