# SPDX-License-Identifier: Apache-2.0
"""What tests and benchmarks share: plugins, samples, clusters, and worlds and faults to try the operator in."""
