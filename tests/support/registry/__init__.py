# SPDX-License-Identifier: Apache-2.0
"""Registries of adapters to try readers on, stores that speak S3, a stand-in for vLLM, and kills at any step."""
