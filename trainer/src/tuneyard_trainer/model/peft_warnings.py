# SPDX-License-Identifier: Apache-2.0
"""What PEFT warns of while it puts an adapter on a model."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def peft_is_strict() -> Iterator[None]:
    """PEFT only warns about weights that an adapter lacks; here that raises UserWarning.

    Layers that keep random values must not count as trained.
    """
    with warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5 for a property under its old name.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        warnings.filterwarnings("error", ".*missing adapter keys.*", UserWarning)
        yield
