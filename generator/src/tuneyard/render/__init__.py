# SPDX-License-Identifier: Apache-2.0
"""Renders a resolved stack into files. Objects stay data until the very last step. Pure."""
