# SPDX-License-Identifier: Apache-2.0
"""What lies where in the workspace of a job, for all stages alike."""

PREPARED = "prepared"
"""What prepare leaves for train."""
FORMER_ADAPTER = "former-adapter"
"""Inside PREPARED: the adapter that the job goes on from."""
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
"""Loss, learning rate and speed of every step."""
ADAPTER = "adapter"
"""The finished adapter, in PEFT's layout."""
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What PEFT, NIM and vLLM read of an adapter."""
SAMPLES = "evaluation/samples.jsonl"
"""Answers of base and tuned model side by side."""
