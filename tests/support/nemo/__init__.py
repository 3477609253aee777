# SPDX-License-Identifier: Apache-2.0
"""A double of NVIDIA NeMo microservices, generation v1: Data Store, Entity Store, Customizer, Evaluator.

Proved by clients that we did not write (tests/services/test_sdk.py). What no published source says is in `assumed.py`.
"""
