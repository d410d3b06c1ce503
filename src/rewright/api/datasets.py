"""`rw.build_sft` and `rw.build_pairs`: the sets to train on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from rewright.api.repairs import Repaired
from rewright.api.session import checked, dialect_of, session
from rewright.api.settings import ModelLike, recipe_with
from rewright.api.tasks import TasksLike, as_task_list
from rewright.core.progress import hidden_bars
from rewright.core.records import Quality, Trajectory
from rewright.pipeline.stages.build import build

__all__ = ["build_pairs", "build_sft"]


def build_sft(
    trajectories: Iterable[Trajectory],
    tasks: TasksLike,
    *,
    qualities: Iterable[Quality] | None = None,
    repairs: Iterable[Repaired] = (),
    held_out_fraction: float = 0.0,
    model: ModelLike | None = None,
    dialect: str | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Build the rows for supervised fine-tuning: the kept and the repaired trajectories (AutoTraj, section 6).

    Args:
        trajectories: the candidates.
        tasks: their tasks, or what `rw.load_tasks` loads.
        qualities: the scores of the candidates, as `rw.score` returns; default: all of them are kept.
        repairs: what `rw.repair` returned.
        held_out_fraction: fraction of the tasks whose pairs are held out; their rows are left out here. Give the same
            number to `rw.build_pairs`.
        model: the model to train, whose tokenizer adds `input_ids` and `mask` (1: the model wrote it); default: none.
        dialect: dialect of the trajectories; default: the one that reads their stored calls and answers.
        seed: seed of the shuffle.

    Returns:
        Rows with `id`, `task_id`, `kind` (`kept` or `repaired`), `parent`, `messages` and `tools`, without duplicates:
        what TRL's `SFTTrainer` takes.

    Raises:
        InputError: a mistake in the arguments.

    Example:
        ```python
        rows = rw.build_sft(trajectories, tasks, qualities=qualities, repairs=cases)
        dataset = datasets.Dataset.from_list(rows)
        ```
    """
    sections = {"build__held_out_fraction": held_out_fraction}
    given = _Given(trajectories, tasks, qualities, repairs, model, dialect, seed)
    return _built("sft.jsonl", given, sections)


def build_pairs(
    trajectories: Iterable[Trajectory],
    tasks: TasksLike,
    *,
    qualities: Iterable[Quality] | None = None,
    repairs: Iterable[Repaired] = (),
    pairs: Literal["repaired", "repaired+kept"] | None = None,
    held_out_fraction: float = 0.0,
    model: ModelLike | None = None,
    dialect: str | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Build preference pairs: a repaired trajectory over its original (AutoTraj, section 7).

    Args:
        trajectories: the candidates.
        tasks: their tasks, or what `rw.load_tasks` loads.
        qualities: the scores of the candidates, as `rw.score` returns. `repaired+kept` needs them.
        repairs: what `rw.repair` returned.
        pairs: `repaired`, or `repaired+kept` for kept trajectories over wrong ones of the same task, too; default:
            the recipe's.
        held_out_fraction: fraction of the tasks whose pairs have `split: heldout`.
        model: the model to train, whose tokenizer adds `chosen_ids` and `rejected_ids`; default: none.
        dialect: dialect of the trajectories; default: the one that reads their stored calls and answers.
        seed: seed of the shuffle.

    Returns:
        Rows with `id`, `task_id`, `mode`, `split`, `matched_format`, `prompt`, `chosen`, `rejected` and `tools`: what
        TRL's `RewardTrainer` and `DPOTrainer` take.

    Raises:
        InputError: a mistake in the arguments.

    Example:
        ```python
        pairs = rw.build_pairs(trajectories, tasks, qualities=qualities, repairs=cases)
        ```
    """
    sections = {"build__held_out_fraction": held_out_fraction, "build__pairs": pairs}
    given = _Given(trajectories, tasks, qualities, repairs, model, dialect, seed)
    return _built("preferences.jsonl", given, sections)


class _Given(NamedTuple):
    """The arguments of both functions."""

    trajectories: Iterable[Trajectory]
    tasks: TasksLike
    qualities: Iterable[Quality] | None
    repairs: Iterable[Repaired]
    model: ModelLike | None
    dialect: str | None
    seed: int


def _built(name: str, given: _Given, sections: dict[str, Any]) -> list[dict[str, Any]]:
    """Run the stage `build`, and return the rows of one of its files."""
    cases, qualities = list(given.repairs), given.qualities
    known = as_task_list(given.tasks)
    candidates = {one.id: one for one in checked(given.trajectories)}
    repaired = {one.id: one for case in cases for one in case.attempts}
    candidates |= {case.original.id: case.original for case in cases}
    found = checked({**candidates, **repaired}.values(), known)
    if not found:
        return []
    if qualities is None:
        failed = {case.original.id for case in cases}
        qualities = [_kept(one) for one in found if one.id not in failed and one.id not in repaired]
    dialect = dialect_of(found, given.dialect)
    recipe = recipe_with(None, model=given.model, dialect=dialect, seed=given.seed, stages=["build"], **sections)
    with session(recipe, known, renders=given.model is not None) as opened, hidden_bars():
        opened.run.trajectories.rewrite(found)
        opened.run.qualities.rewrite(qualities)
        opened.run.repairs.rewrite(case.record for case in cases)
        build(opened)
        return opened.run.read_lines(name)


def _kept(one: Trajectory) -> Quality:
    return Quality(confidence=1.0, length=1.0, repetition=1.0, total=1.0, trajectory_id=one.id, selected="kept")
