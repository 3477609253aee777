# SPDX-License-Identifier: Apache-2.0
"""From a resolved stack to files, as data until the very last step. Pure."""
