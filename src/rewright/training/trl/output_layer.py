"""Compute the output layer at labelled positions only, on a CPU as TRL does on a GPU.

TRL's trainers compute log-probabilities in tiles. On devices with Triton a tile has only the positions with a label. On
all other devices it has every position, since some of them compile a program for every shape. A CPU does not, and most
positions of a tool-use trajectory (prompt, schemas, results, padding) have no label: with a vocabulary of 49,000 the
output layer would cost more than all other layers of a small model together. Loss and gradients are the same up to
rounding, because TRL drops the values at unlabelled positions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

__all__ = ["labelled_positions_only"]


@contextlib.contextmanager
def labelled_positions_only() -> Iterator[None]:
    """Inside the block, TRL's output layer skips positions without a label on a CPU, too.

    TRL 1.16 has no option for it: `trl.trainer.utils` asks its function `_use_triton` whether to select the positions.
    (The tiles ask another reference to it whether to use Triton's kernels.) Without that function nothing changes.
    """
    from trl.trainer import utils

    original = getattr(utils, "_use_triton", None)
    if original is None:
        yield
        return

    def selects(device: Any) -> bool:
        return device.type == "cpu" or bool(original(device))

    utils._use_triton = selects
    try:
        yield
    finally:
        utils._use_triton = original
