# SPDX-License-Identifier: Apache-2.0
"""What a published adapter or model carries besides its weights."""
