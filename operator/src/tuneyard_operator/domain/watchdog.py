# SPDX-License-Identifier: Apache-2.0
"""Has a training stopped making steps? It counts looks and reads no clock, so a clock that jumps kills nothing.

Only what the training pod says of itself counts: `training`, and the same step as before. A port that does not
answer is no evidence, since it is best effort; spec.deadlines bounds what this can't see.
"""

from dataclasses import dataclass, replace

from tuneyard_api.pod_contract import Progress

FLOOR_SECONDS = 120.0
"""Seconds without a step below which nothing counts as a hang."""
STEPS = 3.0
"""Number of median step times without a step that counts as a hang."""
FIRST_STEP_SECONDS = 1800.0
"""Limit before a median is known: the time after which PyTorch gives up a collective operation."""
_LONGEST_GAP = 30.0
"""Most seconds that one look may add, because a late look or a clock that jumped proves no more."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """What is remembered about a training pod between looks; a restart of the operator resets it."""

    pod: str
    """uid of the pod."""
    step: int
    is_training: bool
    step_seconds: float | None
    still: float = 0.0
    """Seconds for which the pod has been seen at the same step."""

    @property
    def is_hung(self) -> bool:
        """Whether the training has made no step for too long."""
        return self.still >= self.patience

    @property
    def patience(self) -> float:
        """Seconds that a step may take."""
        if self.step_seconds is None:
            return FIRST_STEP_SECONDS
        return max(FLOOR_SECONDS, STEPS * self.step_seconds)


def next_pulse(former: Pulse | None, pod: str, progress: Progress, elapsed: float) -> Pulse:
    """The pulse after a look, `elapsed` seconds after the one before."""
    is_training = progress.phase in {"training", "compiling"}
    pulse = Pulse(pod, progress.step, is_training, progress.step_seconds)
    if former is None or not pulse.is_training:
        return pulse
    if (former.pod, former.step, former.is_training) != (pod, pulse.step, True):
        return pulse
    return replace(pulse, still=former.still + min(max(elapsed, 0.0), _LONGEST_GAP))
