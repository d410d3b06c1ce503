"""The rows of a training batch as every check reads them, and what a check returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch", "BatchRow", "Finding", "NotChecked", "Result", "Trajectory", "runs"]

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Spans = list[tuple[int, int]]

_WHOLE_RESULT = 10
"""Length of the run that a masked token without a log-probability is part of, on average, if whole results have none.
Chat templates have up to 7 tokens with probability 1 between two turns."""
_ONE_SIDE = 0.2
"""Share of a constant's tokens on the other side of the mask, as of a mask that is shifted by one."""


class Finding(NamedTuple):
    """One place where a batch is wrong.

    Attributes:
        code: name of the check.
        what: what is wrong there.
        row: number of the row, from 0.
        token: position in the response of the row, from 0; None if the row as a whole is concerned.
        expected: what a right batch has there.
        place: the row's place in the file.
    """

    code: str
    what: str
    row: int
    token: int | None
    expected: str
    place: str = ""


class NotChecked(NamedTuple):
    """A check that could not be made, and why."""

    reason: str


Result = list[Finding] | NotChecked


@dataclass(frozen=True)
class BatchRow:
    """One sequence of a batch, L tokens of response. None: the dump does not have it.

    Attributes:
        index: number of the row, from 0.
        place: its place in the file.
        ids: token ids of the response (L,), or of the whole sequence.
        mask: the tokens that are trained (L,).
        real: the tokens that are not padding (L,).
        trained_padding: the first token of padding that the mask has nevertheless; `mask` is without it.
        group, trajectory, task: labels. A trajectory may have several rows (step-wise training).
        prompt_ids: token ids of the prompt, without padding.
        whole: `ids` are the whole sequence, prompt included.
        turns: half-open ranges of the generated tokens of each turn.
        turn_starts, turn_ends: positions of the first token of each turn and after its last, if they are kept apart.
        turn_ids: the token ids that the sampler returned for each turn.
        tokens, turn_texts: the text of each token (L), and the text that the model wrote in each turn.
        reward: the reward of the row's trajectory.
        reward_stated: the reward is a value of the dump, not a sum of `token_rewards`.
        token_rewards: rewards per token (L,), before a KL penalty.
        turn_rewards: rewards per turn.
        advantages: advantages per token (L,).
        log_probs: log-probabilities of the sampler (L,).
        old_log_probs: log-probabilities of the trainer (L,).
        last_step: the row is the last one of its trajectory.
        truncated: the response ended at a limit.
        padding: the row only fills up the batch.
    """

    index: int
    place: str
    ids: NDArray[np.int64]
    mask: Flags
    real: Flags
    trained_padding: int | None = None
    group: str | None = None
    trajectory: str | None = None
    task: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    whole: bool = False
    turns: Spans | None = None
    turn_starts: list[int] | None = None
    turn_ends: list[int] | None = None
    turn_ids: list[list[int]] | None = None
    tokens: list[str] | None = None
    turn_texts: list[str] | None = None
    reward: float | None = None
    reward_stated: bool = True
    token_rewards: Array | None = None
    turn_rewards: list[float] | None = None
    advantages: Array | None = None
    log_probs: Array | None = None
    old_log_probs: Array | None = None
    last_step: bool | None = None
    truncated: bool | None = None
    padding: bool = False

    @property
    def prompt(self) -> Any:
        """What the row was asked: `task`, or the prompt's token ids. None if neither is known."""
        return self.task if self.task is not None else self.prompt_ids

    @property
    def scalar(self) -> float | None:
        """The advantage of the row's trained tokens, if it is the same for all of them."""
        if self.advantages is None or not self.mask.any():
            return None
        values = self.advantages[self.mask]
        size = float(np.abs(values).max())
        if not np.isfinite(size):
            return None
        return float(values.mean()) if float(np.ptp(values)) <= 1e-3 * size + 1e-9 else None

    @property
    def start(self) -> int:
        """The position of the first token that is not padding."""
        return int(np.argmax(self.real)) if len(self.real) else 0

    @property
    def end(self) -> int:
        """The position after the last token that is not padding."""
        return len(self.real) - int(np.argmax(self.real[::-1])) if self.real.any() else 0

    def finding(self, code: str, what: str, token: int | None, expected: str) -> Finding:
        """Return a finding in this row."""
        return Finding(code, what, self.index, token, expected, self.place)


@dataclass(frozen=True)
class Trajectory:
    """The rows of one trajectory, in the order of its steps."""

    rows: list[BatchRow]

    @property
    def last(self) -> BatchRow:
        """The last step."""
        return next((row for row in self.rows if row.last_step), self.rows[-1])

    @property
    def rewards(self) -> list[float]:
        """What its reward may be: that of the last step, and the sum over its steps."""
        stated = [row.reward for row in self.rows if row.reward is not None]
        return [] if self.last.reward is None or not stated else [self.last.reward, float(sum(stated))]

    @property
    def scalar(self) -> float | None:
        """The advantage of its trained tokens, if it is the same for all of them."""
        trained = [row for row in self.rows if row.mask.any()]
        values = [row.scalar for row in trained]
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return None
        return known[0] if max(known) - min(known) <= 1e-3 * max(map(abs, known)) + 1e-9 else None


@dataclass(frozen=True)
class Batch:
    """The rows of a batch. `turn_start`, `turn_end`: token ids that open and close a turn of the model, if given."""

    rows: Sequence[BatchRow]
    turn_start: tuple[int, ...] = ()
    turn_end: tuple[int, ...] = ()
    padded: frozenset[int] = field(init=False, default=frozenset())
    trained: tuple[BatchRow, ...] = field(init=False, default=())
    """The rows with at least one trained token; a row that is filtered out has an empty mask. Single tokens that were
    rejected (`_with_rejected`) count as trained."""

    def __post_init__(self) -> None:
        """Find the rows that only fill up the batch: those that say so, and untrained copies of other rows."""
        seen: dict[Any, BatchRow] = {}
        padded = set()
        for row in self.rows:
            key = (row.group, row.trajectory, row.prompt_ids, row.ids[row.real].tobytes())
            if row.padding or (key in seen and not row.mask.any() and row.trajectory is not None):
                padded.add(row.index)
            seen.setdefault(key, row)
        object.__setattr__(self, "padded", frozenset(padded))
        trained = [row for row in self.rows if row.mask.any() and row.index not in padded]
        object.__setattr__(self, "trained", tuple(_with_rejected(_without_fill(trained))))

    @cached_property
    def log_probs_of_all(self) -> bool:
        """Whether the log-probabilities are those of all tokens, results of tools included.

        Masked tokens have one below 0 about as often as trained ones then. Tokens with probability 1 have 0 there
        too, but stand alone: where only sampled tokens have one, the zeros are whole results. Trained tokens
        without one are results, too (an inverted mask).
        """
        rows = [(row, row.log_probs < 0) for row in self.trained if row.log_probs is not None]
        asked = [np.logical_or.accumulate(row.mask | below) if row.whole else row.real for row, below in rows]
        masked = [row.real & ~row.mask & part for (row, _), part in zip(rows, asked, strict=True)]  # without a prompt
        lengths = [
            end - start for (_, below), part in zip(rows, masked, strict=True) for start, end in runs(part & ~below)
        ]
        size, count = sum(int(part.sum()) for part in masked), sum(lengths)
        whole = sum(length**2 for length in lengths) >= _WHOLE_RESULT * count > 0
        trained = sum(int(row.mask.sum()) for row, _ in rows)
        sampled = sum(int((row.mask & below).sum()) for row, below in rows)
        share = sampled / trained if trained else 0.0
        return size - count > 0.5 * share * size and not whole and share > 0.2

    def trajectories(self, rows: Iterable[BatchRow]) -> list[Trajectory]:
        """Divide rows into trajectories. A row without a label of a trajectory is one of its own."""
        found: dict[Any, list[BatchRow]] = {}
        for row in rows:
            found.setdefault((row.group, row.trajectory) if row.trajectory is not None else row.index, []).append(row)
        return [Trajectory(part) for part in found.values()]

    def groups(self, *, padding: bool = False) -> dict[str, list[BatchRow]]:
        """Divide the rows that have a group by it."""
        found: dict[str, list[BatchRow]] = {}
        for row in self.rows:
            if row.group is not None and (padding or row.index not in self.padded):
                found.setdefault(row.group, []).append(row)
        return found


def _without_fill(rows: list[BatchRow]) -> list[BatchRow]:
    """Set log-probabilities of the sampler to 0 where a constant such as -1 stands for tokens that were not sampled.

    A constant is a whole number that lies on one side of the mask: on masked tokens, or, as in an inverted mask, on
    most trained ones.
    """
    parts = [(row.log_probs[row.real], row.mask[row.real]) for row in rows if row.log_probs is not None]
    if not parts:
        return rows
    values, trained = (np.concatenate(part) for part in zip(*parts, strict=True))
    whole = np.isfinite(values) & (values <= -1) & (values == np.round(values))
    fills = []
    for value in np.unique(values[whole]):
        share = float(trained[values == value].mean())
        if share <= _ONE_SIDE or (share >= 1 - _ONE_SIDE and (values[trained] == value).mean() > 0.5):
            fills.append(value)
    if not fills:
        return rows
    return [
        row
        if row.log_probs is None
        else replace(row, log_probs=np.where(np.isin(row.log_probs, fills), 0, row.log_probs))
        for row in rows
    ]


def _with_rejected(rows: list[BatchRow]) -> list[BatchRow]:
    """Put tokens that were rejected one by one back into the masks.

    A trainer that corrects for its sampler masks tokens whose ratio of both probabilities is out of bounds (verl's
    `rollout_rs`). So each sampled token that is not trained has a ratio beyond those of all trained tokens.
    """
    ratios = [_log_ratio(row) for row in rows]
    known = [(row, ratio) for row, ratio in zip(rows, ratios, strict=True) if ratio is not None]
    if not known:
        return rows
    kept = np.concatenate([ratio[row.mask & (row.log_probs < 0)] for row, ratio in known if row.log_probs is not None])
    kept = kept[np.isfinite(kept)]
    if not len(kept):
        return rows
    found = []
    for row, ratio in zip(rows, ratios, strict=True):
        if ratio is None or row.log_probs is None:
            found.append(row)
            continue
        left_out = row.real & ~row.mask & (row.log_probs < 0)
        left_out &= np.append(left_out | row.mask, False)[1:]  # the end of a turn may be untrained anyway
        if row.turns is not None:  # a token beside the turns was not sampled
            left_out &= np.isin(np.arange(len(row.ids)), [at for start, end in row.turns for at in range(start, end)])
        beyond = left_out & ((ratio < kept.min()) | (ratio > kept.max()))
        found.append(replace(row, mask=row.mask | beyond) if (beyond == left_out).all() and beyond.any() else row)
    return found


def _log_ratio(row: BatchRow) -> Array | None:
    if row.log_probs is None or row.old_log_probs is None:
        return None
    with np.errstate(invalid="ignore"):  # both minus infinity
        return row.old_log_probs - row.log_probs


def runs(flags: Flags) -> Spans:
    """Return the half-open ranges of True in `flags` (L,)."""
    edges = np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))
    return list(zip(np.nonzero(edges == 1)[0].tolist(), np.nonzero(edges == -1)[0].tolist(), strict=True))


Check = Callable[[Batch], Result]
