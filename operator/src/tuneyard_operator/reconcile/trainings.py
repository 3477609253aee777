# SPDX-License-Identifier: Apache-2.0
"""Asks the services that train what a pass needs to know, and remembers which customization an attempt is."""

from dataclasses import dataclass, field, replace

from tuneyard_api import names
from tuneyard_api.customizer import Customizer
from tuneyard_api.pod_contract import Stage
from tuneyard_api.status import Attempt, ConditionType

from tuneyard_operator.domain.conditions import is_true
from tuneyard_operator.domain.customizations import SeenCustomization, SeenOutput, ServiceTrouble
from tuneyard_operator.domain.deadlines import running_attempt
from tuneyard_operator.domain.objects.customization import output_model
from tuneyard_operator.domain.objects.metadata import Owner
from tuneyard_operator.domain.observed import Observed
from tuneyard_operator.ports import ServiceError, TrainingServices
from tuneyard_operator.reconcile.queue import Key

Found = tuple[SeenCustomization, ...] | ServiceTrouble


@dataclass
class Trainings:
    """Reads the services for one FineTuneJob at a time."""

    services: TrainingServices
    _ids: dict[Key, tuple[str, str]] = field(default_factory=dict)
    """Name and id of the one customization that a job is known to have running; all of a namespace are listed to find it."""

    def forget(self, key: Key) -> None:
        """The job is over or gone."""
        self._ids.pop(key, None)

    async def of_running(self, seen: Observed) -> Found | None:
        """The customizations of a job, requested only between DataReady and Evaluated."""
        service, conditions = _service_of(seen), seen.status.conditions
        is_due = is_true(conditions, ConditionType.DATA_READY)
        if service is None or not is_due or is_true(conditions, ConditionType.EVALUATED):
            return None
        key, attempt = Key(seen.namespace, seen.name), running_attempt(seen.status)
        name, known = self._ids.get(key, ("", ""))
        try:
            if attempt is not None and attempt.job == name:
                one = await self.services.customization(service.endpoint, known)
                if one is not None:
                    return (one,)
            found = await self.services.customizations(service.endpoint, seen.namespace, seen.uid)
        except ServiceError as error:
            return error.trouble
        running = [each for each in found if not each.is_over]
        self.forget(key)
        if len(running) == 1:
            self._ids[key] = running[0].name, running[0].id
        return found

    async def output_of(self, seen: Observed) -> SeenOutput | ServiceTrouble | None:
        """The model that the training has left, requested only between Evaluated and Published."""
        service, conditions = _service_of(seen), seen.status.conditions
        is_due = is_true(conditions, ConditionType.EVALUATED)
        if (
            service is None
            or seen.frozen is None
            or not is_due
            or is_true(conditions, ConditionType.PUBLISHED)
        ):
            return None
        attempt = _last_training(seen)
        if attempt is None:
            return None
        owner = Owner(seen.namespace, seen.name, seen.uid)
        try:
            found = await self.services.output(service, output_model(owner, seen.frozen, attempt.number))
        except ServiceError as error:
            return error.trouble
        return found or SeenOutput("uploading", str(seen.frozen.plan.registry))

    async def with_all(self, seen: Observed) -> Observed:
        """A job that is over or being deleted, with its customizations while our finalizer stands for them."""
        plan = seen.status.plan
        if names.CUSTOMIZATION_FINALIZER not in seen.finalizers or plan is None or plan.customizer is None:
            return seen
        try:
            found: Found = await self.services.customizations(plan.customizer, seen.namespace, seen.uid)
        except ServiceError as error:
            found = error.trouble
        return replace(seen, customizations=found)


def _service_of(seen: Observed) -> Customizer | None:
    return seen.frozen.runtime.customizer if seen.frozen is not None else None


def _last_training(seen: Observed) -> Attempt | None:
    """The newest attempt of the training."""
    attempts = [each for each in seen.status.attempts if each.stage is Stage.TRAIN]
    return max(attempts, key=lambda each: each.number, default=None)
