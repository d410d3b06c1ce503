"""The order of the rows of SFT: shuffled as `accelerate` does it, with similar lengths in each micro-batch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Final

import torch
from accelerate.data_loader import SeedableRandomSampler

__all__ = ["StepSampler"]

WINDOW_STEPS: Final = 50
"""`grouped`: rows are sorted by length inside windows of this number of steps, at most a quarter of the data set."""


class StepSampler(torch.utils.data.Sampler[int]):
    """Row indices of an epoch, determined by the seed and the epoch: the same in every process and after a resume.

    Args:
        lengths: number of tokens of each row.
        total: number of rows of the data set. The rows after `lengths` have no loss and come last, in order.
        step: rows of an optimizer step, over all processes and micro-batches.
        seed: seed of the order.
        grouped: put rows of similar length into the same steps, and shuffle the steps. Otherwise only the rows of each
            step are sorted, which changes no gradient.
    """

    def __init__(self, lengths: Sequence[int], total: int, *, step: int, seed: int, grouped: bool) -> None:
        self.lengths, self.total, self.step, self.grouped = lengths, total, step, grouped
        self.seed = seed
        self.shuffled = SeedableRandomSampler(range(len(lengths)), data_seed=seed)

    def __iter__(self) -> Iterator[int]:
        epoch = self.shuffled.epoch
        order = list(self.shuffled)
        window = self.step
        if self.grouped:
            window *= max(1, min(WINDOW_STEPS, len(order) // (4 * self.step)))
        order = [index for part in _parts(order, window) for index in sorted(part, key=self._length, reverse=True)]
        if self.grouped:
            *full, last = _parts(order, self.step)
            random.Random(f"{self.seed}/{epoch}").shuffle(full)
            order = [index for part in (*full, last) for index in part]
        yield from order
        yield from range(len(self.lengths), self.total)

    def __len__(self) -> int:
        return self.total

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration. (It counts by itself otherwise.)"""
        self.shuffled.set_epoch(epoch)

    def _length(self, index: int) -> int:
        return self.lengths[index]


def _parts(order: list[int], size: int) -> list[list[int]]:
    return [order[start : start + size] for start in range(0, len(order), size)]
