# SPDX-License-Identifier: Apache-2.0
"""What people ask of a stack: its order, a value's origin and influence, differences, newer pins, reference pages."""
