# SPDX-License-Identifier: Apache-2.0
"""The catalog: every component that an environment can have. One module each, one line here, one pin."""

from tuneyard.catalog import certificates, foundation, gpu, nim_operator
from tuneyard.catalog.component import Component
from tuneyard.environment.model import Environment

_MODULES = (certificates, foundation, gpu, nim_operator)


def catalog(environment: Environment) -> tuple[Component, ...]:
    """Every component, with one for each model that the environment serves."""
    del environment
    return tuple(component for module in _MODULES for component in module.COMPONENTS)
