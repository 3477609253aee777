# SPDX-License-Identifier: Apache-2.0
"""Any sequence of faults, edits and deletions, one step after another: what must never happen does not, and the job ends.

The normal suite walks a short way, always the same; `make survive` walks 50,000 steps, another way each time.
"""

import os
import random

import pytest
from support.world.survival_machine import WALKED, walk

LIVES_OF_A_SHORT_WALK = 40
LIVES_OF_A_PIECE = 200
STEPS = int(os.environ.get("TUNEYARD_SURVIVE_STEPS", "0"))
SEED = int(os.environ.get("TUNEYARD_SURVIVE_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)


def test_a_job_survives_a_sequence_of_faults() -> None:
    WALKED.clear()
    walk(LIVES_OF_A_SHORT_WALK)
    assert WALKED["steps"] >= LIVES_OF_A_SHORT_WALK


@pytest.mark.skipif(not STEPS, reason="a walk of many minutes: make survive")
@pytest.mark.timeout(0)
def test_a_job_survives_every_sequence_of_faults(capsys: pytest.CaptureFixture[str]) -> None:
    WALKED.clear()
    with capsys.disabled():
        print(f"\nthe same again: TUNEYARD_SURVIVE_SEED={SEED} make survive")
        piece = 0
        while WALKED["steps"] < STEPS:
            walk(LIVES_OF_A_PIECE, number=SEED + piece)
            piece += 1
            print(f"{WALKED['steps']:8} steps, {WALKED['lives']} lives", flush=True)
        print(f"\n{WALKED['steps']} steps in {WALKED['lives']} lives without a violation")
        for what, count in WALKED.most_common():
            print(f"{count:8} {what}")
