# SPDX-License-Identifier: Apache-2.0
"""The world behind the ports: the Kubernetes API, inference endpoints, training pods, the clock, Prometheus."""
