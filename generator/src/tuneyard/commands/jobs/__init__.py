# SPDX-License-Identifier: Apache-2.0
"""The verbs of `kubectl tuneyard`, one module each; `options` has what they share."""
