# SPDX-License-Identifier: Apache-2.0
"""Finds the components of an environment: those of the preset, those it enables, and those they need. Pure.

A need is met by the environment's choice (`use`), else by what is there already, else by the preset's choice, else by
the only component of the catalog that provides it. Several possible providers and no choice is an error, not a guess.
"""

from collections.abc import Iterable, Iterator, Mapping

from tuneyard_api.base import to_api_name

from tuneyard.environment.model import Environment
from tuneyard.environment.presets import DEFAULT_PROVIDERS, PRESETS, USE_CAPABILITIES, preset_components
from tuneyard.findings import Finding, InputError, did_you_mean
from tuneyard.stack.model import Component, Edge, Need, Stack, all_needs
from tuneyard.stack.pins import Pin


def resolve(environment: Environment, catalog: Iterable[Component], pins: Mapping[str, Pin]) -> Stack:
    """The stack that an environment means.

    Raises:
        InputError: unknown components, needs that nobody or several meet.
    """
    return Resolution(environment, {component.name: component for component in catalog}, pins).stack()


class Resolution:
    """One run of `resolve`; collects findings instead of stopping at the first."""

    def __init__(
        self, environment: Environment, catalog: Mapping[str, Component], pins: Mapping[str, Pin]
    ) -> None:
        self.environment = environment
        self.catalog = catalog
        self.pins = pins
        self.preset = PRESETS[environment.preset]
        self.findings: list[Finding] = []
        self.enabled: dict[str, str] = {}
        self.disabled = {name for name, options in environment.components.items() if options.enabled is False}

    def stack(self) -> Stack:
        """Resolve, or raise everything that is wrong."""
        self.findings += self._unknown_components()
        wanted = [c for c in self.catalog.values() if c.when and c.when(self.environment)]
        self.enabled |= {c.name: "the environment asks for it" for c in wanted if not c.beside}
        for name in preset_components(self.environment):
            self.enabled[name] = f"preset {self.environment.preset}"
        for name, options in self.environment.components.items():
            if options.enabled and name in self.catalog:
                self.enabled[name] = f"components.{name}.enabled"
        for name in self.disabled:
            self.enabled.pop(name, None)
        self._add_providers(list(self.enabled))
        here = {capability for name in self.enabled for capability in self.catalog[name].provides}
        for component in wanted:
            if component.beside in here and component.name not in {*self.enabled, *self.disabled}:
                self.enabled[component.name] = f"beside {component.beside}"
                self._add_providers([component.name])
        providers = self._providers()
        if self.findings:
            raise InputError(self.findings)
        components = tuple(self.catalog[name] for name in sorted(self.enabled))
        return Stack(self.environment, components, providers, self.pins, dict(sorted(self.enabled.items())))

    def _unknown_components(self) -> Iterator[Finding]:
        for name in self.environment.components:
            if name not in self.catalog:
                yield Finding(
                    "known-components",
                    "no such component",
                    ("components", name),
                    repr(name),
                    did_you_mean(name, self.catalog),
                )

    def _add_providers(self, waiting: list[str]) -> None:
        while waiting:
            component = self.catalog[waiting.pop(0)]
            for need in all_needs(component, self.environment):
                name = self._provider_of(component, need)
                if name and name not in self.enabled:
                    self.enabled[name] = f"{need.capability} for {component.name}"
                    waiting.append(name)

    def _provider_of(self, component: Component, need: Need) -> str | None:
        """The provider's name; None after noting why there is none."""
        options = sorted(c.name for c in self.catalog.values() if need.capability in c.provides)
        key = USE_CAPABILITIES.get(need.capability)
        chosen = getattr(self.environment.use, key) if key else None
        here = [name for name in options if name in self.enabled]
        if chosen:
            name = chosen
        elif here:
            return here[0]
        elif default := (getattr(self.preset.use, key) if key else DEFAULT_PROVIDERS.get(need.capability)):
            name = default
        elif len(options) == 1:
            name = options[0]
        else:
            self._note_missing(component, need, options, None)
            return None
        if name in self.disabled:
            self._note_missing(component, need, options, name)
            return None
        return str(name)

    def _note_missing(self, component: Component, need: Need, options: list[str], off: str | None) -> None:
        key = USE_CAPABILITIES.get(need.capability)
        if off:
            path: tuple[str | int, ...] = ("components", off, "enabled")
            hint = f"components.{component.name}.enabled: false as well"
            if others := [name for name in options if name != off]:
                hint = f"another provider ({', '.join(others)})"
        else:
            path = need.path or ("components", component.name)
            hint = (
                f"use.{to_api_name(key)}: {' or '.join(options)}"
                if key and options
                else f"enable {' or '.join(options)}"
                if options
                else "another preset"
            )
        problem = f"{component.name} needs {need.capability} ({need.because}), and nothing provides it"
        self.findings.append(Finding("needs-are-met", problem, path, "disabled" if off else None, hint))

    def _providers(self) -> dict[str, Component]:
        providers: dict[str, Component] = {}
        for name in sorted(self.enabled):
            component = self.catalog[name]
            for capability in component.provides:
                if other := providers.get(capability):
                    self.findings.append(
                        Finding(
                            "one-provider-each",
                            f"{other.name} and {name} both provide {capability}",
                            self._place(name, other.name),
                            None,
                            f"enabled: false for one of them ({self.enabled[other.name]}; {self.enabled[name]})",
                        )
                    )
                providers[capability] = component
        return providers

    def _place(self, *names: str) -> tuple[str | int, ...]:
        """The key that enabled one of them."""
        for name in names:
            if name in self.environment.components:
                return ("components", name)
        return ("use",)


def has_secrets(component: Component, stack: Stack) -> bool:
    """Whether its pods read a Secret that the `secrets` component brings."""
    return "secrets" not in component.provides and bool(
        component.databases or component.buckets or tuple(component.secrets(stack))
    )


def reason(capability: str) -> str:
    """Why a soft edge is there."""
    return (
        "its secrets are there first"
        if capability == "secrets"
        else f"it looks for {capability} once, when it starts"
    )


def edges(stack: Stack) -> tuple[Edge, ...]:
    """Which component waits for which, and why; sorted."""
    found = set()
    for component in stack.components:
        for need in stack.needs(component):
            provider = stack.providers[need.capability].name
            if provider != component.name:
                found.add(Edge(component.name, provider, need.capability, need.because))
        for capability in component.after + (("secrets",) if has_secrets(component, stack) else ()):
            if stack.has(capability) and (provider := stack.providers[capability].name) != component.name:
                found.add(Edge(component.name, provider, capability, reason(capability), soft=True))
    return tuple(sorted(found, key=lambda e: (e.component, e.provider, e.capability, e.because)))
