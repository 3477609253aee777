# SPDX-License-Identifier: Apache-2.0
"""A small OpenAI-compatible server on transformers and PEFT that keeps NIM's contract for adapters.

It stands in for NVIDIA NIM where there is no GPU, and says so at /v1/metadata: one request at a time, on CPU, in
float32. What clients and the operator see is NIM's: a folder of adapters that is looked at every few seconds,
/v1/models, completions and readiness. `settings` -> `registry` (what is on disk) -> `catalog` (what is served) ->
`engine` (the model) and `requests`, `answers` (OpenAI's shapes) -> `worker` (one thread) -> `app` (HTTP).
"""
