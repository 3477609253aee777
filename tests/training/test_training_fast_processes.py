# SPDX-License-Identifier: Apache-2.0
"""The fast path over several processes: the losses and updates of one."""

import random

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from support.fast_processes import CASES, main, trained  # noqa: E402
from tuneyard_local.network import pick_ports  # noqa: E402
from tuneyard_trainer.model.world import World  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]


def test_two_processes_train_by_the_fast_path_as_one_does(tmp_path):
    torch.multiprocessing.spawn(
        main, (pick_ports(["first"], random.SystemRandom())["first"], tmp_path), nprocs=2
    )
    for case in CASES:
        alone = trained(case, World())
        one, two = (torch.load(tmp_path / f"{case}-{rank}.pt") for rank in (0, 1))
        together = [[*a, *b] for a, b in zip(one.pop("losses"), two.pop("losses"), strict=True)]
        assert together == [pytest.approx(each, rel=1e-4) for each in alone.pop("losses")], case
        assert alone.keys() == one.keys()
        for name, parameter in alone.items():
            assert torch.allclose(one[name], parameter, atol=1e-5), (case, name)
