# SPDX-License-Identifier: Apache-2.0
"""The model that is trained: found, loaded, given an adapter, spread over processes."""
