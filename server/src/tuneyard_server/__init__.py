# SPDX-License-Identifier: Apache-2.0
"""A small OpenAI-compatible server on transformers and PEFT that serves adapters as vLLM does, for machines without a GPU.

One request at a time, on CPU, in float32. It is not vLLM, and its speed says nothing about vLLM: what it shares is what
clients, the operator and adapter-sync see of adapters (which are listed when, which names answer, what is refused and how),
and one test asks both (tests/serving/test_conformance.py). `settings` -> `adapters` (what is on disk) -> `catalog` (what is
served) -> `engine` (the model) and `requests`, `answers` (OpenAI's shapes) -> `worker` (one thread) -> `app` (HTTP).
"""
