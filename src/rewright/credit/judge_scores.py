"""`form: ruler` of the signal `judge`: the attempts at a task are scored beside each other."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rewright.credit.formula import is_finite
from rewright.credit.judge_prompts import check_ids, draw, ruler_prompt, shown_messages, shown_turns
from rewright.credit.resources import Judge
from rewright.credit.trajectories import CreditTrajectory

if TYPE_CHECKING:
    from rewright.credit.signal_judge import JudgeSignal

__all__ = ["attempts_scored"]

Array = NDArray[np.float64]
_Attempt = tuple[str, list[int]]
"""What is shown of an attempt, and the trajectories (their indices) that are it."""


class _Prompt(NamedTuple):
    """A prompt, its ids, and the trajectories (their indices) that are shown under each name."""

    text: str
    ids: list[str]
    names: dict[str, list[int]]
    second: bool
    """The attempts of the prompt before it, in another order."""


def attempts_scored(
    trajectories: Sequence[CreditTrajectory], tasks: Sequence[Sequence[int]], judge: Judge, settings: JudgeSignal
) -> tuple[list[Array], dict[str, float]]:
    """Ask for the scores of B trajectories, in groups of one task.

    Returns B arrays (T_i,), NaN for trajectories without a valid answer, and metrics.
    """
    prompts: list[_Prompt] = []
    schema: Mapping[str, Any] = {}
    for members in tasks:
        order = _different(trajectories, members, settings)
        for group in _parts(order, settings.most):
            part = [same for _, same in group]
            twice = len(part) > 1 and draw("twice", settings.seed, group[0][0]) < settings.twice
            for places in [part, part[::-1]] if twice else [part]:
                names = {str(number): same for number, same in enumerate(places, 1)}
                text, schema, ids = ruler_prompt(
                    {name: trajectories[same[0]] for name, same in names.items()},
                    per=settings.per,
                    limit=settings.characters,
                    outcome=settings.show_outcome,
                    gold=settings.show_gold,
                )
                prompts.append(_Prompt(text, ids, names, second=places is not part))

    def check(number: int, value: Any) -> None:
        check_ids(value["scores"], prompts[number].ids)
        for entry in value["scores"]:
            if not is_finite(entry["score"]):  # NaN of a judge of the user's, and a whole number of 400 digits
                raise ValueError(
                    f"the score of id {entry['id']} is {entry['score']!r:.40}: expected a number in [0, 1]"
                )

    answers = judge([prompt.text for prompt in prompts], schema, check=check)
    values = [np.full(len(one.turns), np.nan) for one in trajectories]
    clipped, differences = 0, []
    for prompt, answer in zip(prompts, answers, strict=True):
        if answer is None:
            continue
        scores = {str(entry["id"]): float(entry["score"]) for entry in answer["scores"]}
        clipped += sum(not 0.0 <= score <= 1.0 for score in scores.values())
        for name, same in prompt.names.items():
            row = np.zeros(len(values[same[0]]))
            if settings.per == "turn":
                row[:] = [scores[f"{name}-{turn + 1}"] for turn in range(len(row))]
            else:
                row[-1] = scores[name]
            row = row.clip(0.0, 1.0)
            if not prompt.second:
                for index in same:
                    values[index] = row.copy()
            elif not np.isnan(values[same[0]]).any():
                scored = row if settings.per == "turn" else row[-1:]
                differences += np.abs(scored - values[same[0]][-len(scored) :]).tolist()
    stats = {"judge/prompts": float(len(prompts)), "judge/clipped": float(clipped)}
    if differences:
        stats["judge/agreement"] = 1.0 - float(np.mean(differences))
    return values, stats


def _parts(order: Sequence[_Attempt], most: int) -> list[Sequence[_Attempt]]:
    """As few parts of at most `most` attempts as possible; their sizes differ by at most 1."""
    count = -(-len(order) // most)
    bounds = [number * len(order) // count for number in range(count + 1)]
    return [order[start:end] for start, end in itertools.pairwise(bounds)]


def _different(
    trajectories: Sequence[CreditTrajectory], members: Sequence[int], settings: JudgeSignal
) -> list[_Attempt]:
    """The attempts as they are shown, and which they are, in an order drawn from the seed. Equal ones are one."""
    alike: dict[str, list[int]] = defaultdict(list)
    for index in members:
        shown = shown_messages(trajectories[index], settings.characters)
        shown += ["turns", *shown_turns(trajectories[index], settings.characters)]
        if settings.show_outcome:
            shown.append(str(trajectories[index].outcome))
        alike["\n".join(shown)].append(index)
    return sorted(alike.items(), key=lambda pair: draw(settings.seed, pair[0]))
