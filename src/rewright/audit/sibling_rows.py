"""`rewright audit RUN --siblings`: signals against outcomes of siblings, from what a run has stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rewright.audit.siblings import SiblingRow, siblings_of
from rewright.audit.signals import check_signal, scale_warning, signal_name, turn_values
from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.credit.choices import Choice
from rewright.credit.resources import Resources
from rewright.recipe.schema import Recipe
from rewright.reports.run_credit import read_run

__all__ = ["sibling_rows"]


def sibling_rows(
    run: Path, recipe: Recipe, signals: Sequence[Choice], *, stage: str | None = None, seed: int = 0
) -> list[SiblingRow]:
    """Correlate signals with siblings' outcomes on the stored trajectories of a run, RL rollouts included.

    Args:
        run: the run directory.
        recipe: its recipe.
        signals: the signals. They get no model.
        stage: only the trajectories of this stage; None: of all stages. Siblings are of one stage.
        seed: seed of the bootstrap.

    Raises InputError for a signal that is unknown, fails or needs a model, and if hardly any turn has siblings.
    """
    for choice in signals:
        check_signal(choice, recipe.rl.credit, Resources())
    stored = [one for one in read_run(run) if not one.broken and stage in (None, one.stage)]
    stages = sorted({one.stage for one in stored})
    if stage is not None and not stored:
        raise InputError(f"--stage {stage}: {run} has no trajectory of it")
    trajectories = [one.credit_trajectory() for one in stored]
    # An evaluation has no groups of its own: its attempts at a task are siblings of each other.
    groups = [
        (one.stage, one.group or one.task_id) if one.outcome is not None and not one.is_repair else None
        for one in stored
    ]
    found = siblings_of(trajectories, groups)
    rows = []
    for choice in signals:
        values = turn_values(choice, trajectories, recipe.rl.credit, None)
        if (warning := scale_warning(signal_name(choice), np.concatenate([np.zeros(0), *values]))) is not None:
            say(warning)
        try:
            rows.append(found.row(signal_name(choice), values, seed=seed))
        except ValueError as problem:
            raise InputError(
                f"{run} ({', '.join(stages) or 'no stage'}): {problem}: expected several attempts at each task"
            ) from None
    return rows
