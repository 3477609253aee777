# SPDX-License-Identifier: Apache-2.0
"""Views of a stack for people: its order, a value's origin and influence, differences, newer pins, reference pages."""
