# SPDX-License-Identifier: Apache-2.0
"""The fast path over several processes: the losses and updates of one process."""

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


@pytest.mark.parametrize("size", [2, pytest.param(8, marks=pytest.mark.long)])
def test_processes_train_by_the_fast_path_as_one_does(tmp_path, size):
    port = pick_ports(["first"], random.SystemRandom())["first"]
    torch.multiprocessing.spawn(main, (size, port, tmp_path), nprocs=size)
    for case in CASES:
        alone = trained(case, World())
        others = [torch.load(tmp_path / f"{case}-{rank}.pt") for rank in range(size)]
        for step, losses in enumerate(alone.pop("losses")):
            for rank, other in enumerate(others):
                assert other["losses"][step] == pytest.approx(losses[rank::size], rel=1e-4), case
        for name, parameter in alone.items():
            assert torch.allclose(others[0][name], parameter, atol=1e-5), (case, name)
    for rank in range(size):
        found = torch.load(tmp_path / f"unequal-{rank}.pt")
        passes = sum(number + 1 for number in range(size)) + sum(number + 2 for number in range(size))
        assert [gradient.unique().tolist() for gradient in found] == [[passes], [2 * (size - 1)], [0]], rank
