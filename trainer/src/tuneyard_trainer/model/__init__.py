# SPDX-License-Identifier: Apache-2.0
"""The model that is trained: finds it, loads it, adds an adapter, and shards it over processes."""
