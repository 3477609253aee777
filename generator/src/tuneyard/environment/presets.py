# SPDX-License-Identifier: Apache-2.0
"""Presets: the components that an environment begins with, and the choice of providers."""

from collections.abc import Mapping
from dataclasses import dataclass

from tuneyard.environment.model import Environment, Use
from tuneyard.environment.models import ServedModel

USE_CAPABILITIES: Mapping[str, str] = {
    "gpu": "gpu",
    "postgres": "postgres",
    "s3": "s3",
    "vector-db": "vector_db",
    "scheduler": "scheduler",
    "tracking": "tracking",
    "metrics": "metrics",
}
"""Capability -> the field of `use` that chooses its provider."""

DEFAULT_PROVIDERS: Mapping[str, str] = {
    "data-store": "nemo-data-store",
    "entity-store": "nemo-entity-store",
    "pod-metrics": "prometheus-adapter",
}
"""The component to take where several provide a capability, none is enabled, and `use` has no key for it."""


@dataclass(frozen=True)
class Preset:
    """The components and choices from which an environment starts."""

    components: tuple[str, ...]
    use: Use


_NEMO = Use(
    gpu="device-plugin",
    postgres="postgres",
    s3="versitygw",
    vector_db="milvus",
    scheduler="volcano",
    tracking="mlflow",
    nemo="operator",
    serving="nim",
)

PRESETS: Mapping[str, Preset] = {
    "nemo-microservices": Preset(
        ("nemo-customizer", "nemo-evaluator", "nemo-guardrails", "tuneyard-operator"), _NEMO
    ),
    "nemo-helix": Preset(("nemo-helix",), _NEMO),
    "open": Preset(
        ("tuneyard-operator", "mlflow"),
        Use(
            gpu="device-plugin",
            postgres="postgres",
            s3="versitygw",
            vector_db="pgvector",
            scheduler="kueue",
            tracking="mlflow",
            serving="vllm",
        ),
    ),
}


def preset_components(environment: Environment) -> tuple[str, ...]:
    """The preset's components; with `use.nemo: chart` the umbrella chart stands for the NeMo objects, and the chosen tracker for MLflow."""
    preset = PRESETS[environment.preset]
    if environment.preset == "nemo-microservices" and environment.use.nemo == "chart":
        return ("nemo-microservices", *(name for name in preset.components if not name.startswith("nemo-")))
    tracker = environment.use.tracking
    return tuple(tracker if tracker and name == "mlflow" else name for name in preset.components)


def engine_of(environment: Environment, model: ServedModel) -> str:
    """`nim` or `vllm`: the model's, else the environment's, else the preset's."""
    return model.engine or environment.use.serving or PRESETS[environment.preset].use.serving or "vllm"
