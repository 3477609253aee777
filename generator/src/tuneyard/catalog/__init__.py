# SPDX-License-Identifier: Apache-2.0
"""The catalog: every component that an environment can have. One module each, one line here, one pin."""

from tuneyard.catalog import (
    certificates,
    databases,
    foundation,
    gpu,
    nemo,
    nemo_charts,
    nemo_customizer,
    nim_operator,
    object_stores,
    observability,
    scheduling,
    tracking,
    tuneyard,
    vectors,
    workflows,
)
from tuneyard.catalog.component import Component
from tuneyard.catalog.models import model_components
from tuneyard.environment.model import Environment

_MODULES = (
    certificates, databases, foundation, gpu, nemo, nemo_charts, nemo_customizer, nim_operator, object_stores,
    observability, scheduling, tracking, tuneyard, vectors, workflows,
)  # fmt: skip


def static_components() -> tuple[Component, ...]:
    """Every component that does not depend on what an environment says."""
    return tuple(component for module in _MODULES for component in module.COMPONENTS)


def catalog(environment: Environment) -> tuple[Component, ...]:
    """Every component, with one for each model that the environment serves."""
    return (*static_components(), *model_components(environment))
