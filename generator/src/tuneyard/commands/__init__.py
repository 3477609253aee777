# SPDX-License-Identifier: Apache-2.0
"""One module for each command of `tuneyard`; they read arguments, call the pure parts and print."""
