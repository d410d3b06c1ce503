"""Compute the signals of an audit at its planned turns, and store those that take long."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rewright.audit.draws import AuditFiles, SignalValues
from rewright.audit.plan import AuditPlan
from rewright.audit.signals import signal_name, turn_values
from rewright.audit.source import Source
from rewright.core.errors import InputError
from rewright.credit.choices import Choice, chosen_name
from rewright.credit.resources import Resources, needed
from rewright.credit.settings import TurnCredit
from rewright.credit.signals import find_signal
from rewright.rollout.branches import Branches

__all__ = ["MAX_MISSING", "SignalWork", "check_missing", "continues"]

Array = NDArray[np.float64]

MAX_MISSING: Final = 0.1
"""A signal that misses more of the turns is refused, since all signals are compared on the turns that all have."""


def continues(choice: Choice) -> bool:
    """Whether a signal continues trajectories, as `branch` does."""
    return "branch" in needed(find_signal(str(chosen_name(choice))))


class SignalWork:
    """Computes signals for a plan. They get all stored attempts at the planned tasks, as in RL they get a group.

    A signal that continues trajectories gets the planned trajectories alone: it compares none, and each costs
    continuations.

    Args:
        plan, source, files: the audit's.
        credit: the credit settings of the run's recipe, for `matched`.
        resources: what signals need, besides continuations.
        models: the overrides of the recipe's models, which stored values depend on.
        weights: the folders of the models behind "log_prob" and "prefix_score", on whose files they depend, too.
    """

    def __init__(
        self,
        plan: AuditPlan,
        source: Source,
        files: AuditFiles,
        *,
        credit: TurnCredit,
        resources: Resources,
        models: Sequence[str],
        weights: Mapping[str, str],
    ) -> None:
        self._plan, self._source, self._files = plan, source, files
        self._credit, self._resources, self._models = credit, resources, models
        self._weights = weights
        self._unsaved: list[SignalValues] = []

    def values(self, choice: Choice, branches: Branches | None = None) -> SignalValues:
        """The signal at the planned turns (N,), with its cost. May block for long.

        Raises InputError as the signal does, and BudgetError as `branches` does.
        """
        name = signal_name(choice)
        # Earlier versions stored values that were computed on the planned trajectories alone, under other keys.
        needs = needed(find_signal(str(chosen_name(choice))))
        weights = [files for need in needs if (files := files_of(self._weights.get(need)))]
        key = " ".join([name, *self._models, *weights, *([] if continues(choice) else ["(all attempts)"])])
        found = next((one for one in self._files.signals if one.key == key), None)
        if found is not None:
            return found
        began = time.monotonic()
        resources = replace(self._resources, branch=branches)
        planned = dict.fromkeys(one.trajectory for one in self._plan.turns)
        tasks = {one.task for one in self._plan.turns}
        chosen = [
            one
            for one in self._source.trajectories
            if (one.id in planned if continues(choice) else one.task_id in tasks)
        ]
        rows = turn_values(choice, self._source.credit_trajectories(chosen), self._credit, resources)
        by_id = {one.id: row for one, row in zip(chosen, rows, strict=True)}
        values = np.array([by_id[one.trajectory][one.turn] for one in self._plan.turns])
        made = (0, 0) if branches is None else (branches.generations, branches.tokens)
        found = SignalValues.of(key, values, *made, round(time.monotonic() - began, 3))
        if needs:  # others are quick, and their code may change
            self._unsaved.append(found)
        return found

    def save(self) -> None:
        """Store what was computed since the last call, in the audit's folder."""
        for found in self._unsaved:
            self._files.signals.append(found)
        self._unsaved.clear()


def files_of(folder: str | None) -> str:
    """A hash of the names, sizes and times of a folder's files, which changes with a training; empty without one."""
    if folder is None or not Path(folder).is_dir():
        return ""
    found = [(one.name, (about := one.stat()).st_size, about.st_mtime_ns) for one in Path(folder).iterdir()]
    return hashlib.sha256(repr(sorted(found)).encode(errors="surrogatepass")).hexdigest()[:12]


def check_missing(signals: Mapping[str, Array], chosen: NDArray[np.bool_]) -> None:
    """Raise InputError for a signal that misses more than `MAX_MISSING` of the chosen turns (N,)."""
    for name, values in signals.items():
        missing = int(np.isnan(values[chosen]).sum())
        if missing > MAX_MISSING * chosen.sum():
            raise InputError(
                f"signal {name!r} has no value for {missing} of {int(chosen.sum())} turns: expected at most "
                f"{100 * MAX_MISSING:.0f}%"
            )
