# SPDX-License-Identifier: Apache-2.0
"""The catalog: every component that an environment can have. A module of this folder that has COMPONENTS is part of it."""

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module, resources

from tuneyard.catalog.models import model_components
from tuneyard.environment.model import Environment
from tuneyard.stack.model import Component
from tuneyard.stack.pins import Pin, read_pins
from tuneyard.stack.vulnerabilities import Vulnerabilities, read_vulnerabilities


@cache
def pins() -> Mapping[str, Pin]:
    """Every pin of components.yaml by component name."""
    return read_pins(resources.files(__name__).joinpath("components.yaml").read_text())


@cache
def vulnerabilities() -> Vulnerabilities:
    """The dated list of vulnerabilities.yaml."""
    return read_vulnerabilities(resources.files(__name__).joinpath("vulnerabilities.yaml").read_text())


@cache
def static_components() -> tuple[Component, ...]:
    """Every component that does not depend on what an environment says, by module and place in it."""
    modules = [import_module(f"{__name__}.{entry.name}") for entry in pkgutil.iter_modules(__path__)]
    return tuple(component for module in modules for component in getattr(module, "COMPONENTS", ()))


def catalog(environment: Environment) -> tuple[Component, ...]:
    """Every component, with one for each model that the environment serves."""
    return (*static_components(), *model_components(environment))
