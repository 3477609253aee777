# SPDX-License-Identifier: Apache-2.0
"""Alert rules, the dashboard and its picture: typed data here, the chart's files and docs/images from it."""
