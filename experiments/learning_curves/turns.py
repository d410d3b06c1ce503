"""What a base policy's rollouts teach, before any of it is learned: which turns get which advantage, by method.

Turns are sorted by what they did: a call that gold has as well (matched with similarity 1), any other call, a right
last turn, a wrong one. They are counted apart in groups of
rollouts that all failed, where the outcome says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from learning_curves.runs import METHODS, settings_of
from rewright.core.records import Task, Trajectory, Verdict
from rewright.credit import advantages
from rewright.judging import judge_trajectory
from rewright.training.group_credit import score_rollouts

__all__ = ["turn_table"]

KINDS = ("right call", "other call", "right end", "wrong end")


def turn_table(tasks: Sequence[Task], trajectories: Sequence[Trajectory], methods: Sequence[str]) -> str:
    """Markdown: the mean advantage of each kind of turn by method, in units of the method's standard deviation.

    `tasks` and `trajectories` belong together row by row. The reward model is left out: it changes the order of right
    answers alone.
    """
    verdicts = [judge_trajectory(task, one) for task, one in zip(tasks, trajectories, strict=True)]
    solved: dict[str, bool] = {}
    for task, verdict in zip(tasks, verdicts, strict=True):
        solved[task.id] = solved.get(task.id, False) or verdict.correct
    failed_R = np.array([not solved[task.id] for task in tasks])
    matched = score_rollouts(tasks, trajectories, verdicts, settings_of(METHODS["matchtir-hard"], 1), dialect="hermes")
    kinds: list[list[str]] = []
    for rewards, verdict, one in zip(matched.turn_rewards, verdicts, trajectories, strict=True):
        row = ["right call" if reward >= 1.0 else "other call" for reward in rewards]
        if row and not one.turns[-1].calls:
            row[-1] = "right end" if verdict.correct else "wrong end"
        kinds.append(row)
    kind_N = np.array([kind for row in kinds for kind in row])
    failed_N = np.array([failed_R[index] for index, row in enumerate(kinds) for _ in row])
    lines = [f"{len(solved)} groups of {len(tasks) // len(solved)} rollouts, {np.mean(failed_R):.0%} of them without a "
             f"right answer; success {np.mean([verdict.outcome for verdict in verdicts]):.3f}", ""]  # fmt: skip
    counts = [(kind, int(np.sum(kind_N == kind)), int(np.sum((kind_N == kind) & failed_N))) for kind in KINDS]
    lines += ["| method | groups with signal | " + " | ".join(f"{kind} ({all_})" for kind, all_, _ in counts) + " | "
              + " | ".join(f"{kind}, failed groups ({few})" for kind, _, few in counts if few) + " |"]  # fmt: skip
    lines += ["|---" * (2 + len(counts) + sum(few > 0 for *_, few in counts)) + "|"]
    for name in methods:
        advantage_N, signal = advantages_of(name, tasks, trajectories, verdicts)
        unit_N = advantage_N / max(1e-12, float(advantage_N.std()))
        line = f"| {name} | {signal:.0%} |"
        for failed in (None, True):
            for kind, _, few in counts:
                if failed and not few:
                    continue
                chosen = (kind_N == kind) & (failed_N if failed else True)
                line += f" {unit_N[chosen].mean():+.2f} |" if chosen.any() else " - |"
        lines.append(line)
    return "\n".join(lines)


def advantages_of(
    name: str, tasks: Sequence[Task], trajectories: Sequence[Trajectory], verdicts: Sequence[Verdict]
) -> tuple[NDArray[np.float64], float]:
    """(advantages of all turns in a row, share of groups in which any is not 0) under a method."""
    if METHODS[name].own_advantages:
        settings = settings_of(METHODS[name], 1)
        rows = score_rollouts(tasks, trajectories, verdicts, settings, dialect="hermes").advantages
    else:  # TRL's formula: the outcome, normalised in the group, on every turn
        found = advantages(
            [[0.0] * len(one.turns) for one in trajectories],
            [task.id for task in tasks],
            estimator="grpo",
            trajectory_rewards=[verdict.outcome for verdict in verdicts],
        )
        rows = [row.tolist() for row in found]
    signal: dict[str, bool] = {}
    for task, row in zip(tasks, rows, strict=True):
        signal[task.id] = signal.get(task.id, False) or any(abs(value) > 1e-9 for value in row)
    return np.array([value for row in rows for value in row]), float(np.mean(list(signal.values())))
