"""`form: draco` of the signal `judge`: verdicts on criteria, redistributed over the turns that they cite.

Source: DRACO, from summaries of its paper; its code was not available. R is (passed - failed) / (passed + failed), A
its advantage in the group, as in GRPO. Turn j gets A N w_j / (n_j sum(w)) on each of its n_j tokens, N in all, which
keeps the sum over the tokens and the sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rewright.credit.judge_prompts import check_ids, draw, rubric_prompt
from rewright.credit.resources import Judge
from rewright.credit.trajectories import CreditTrajectory

if TYPE_CHECKING:
    from rewright.credit.signal_judge import JudgeSignal

__all__ = ["redistribute", "verdicts_redistributed"]

Array = NDArray[np.float64]
Verdicts = Mapping[str, tuple[str, Sequence[int]]]
"""For each criterion the verdict and the turns that it cites, counted from 1."""

EPS = 1e-6


def verdicts_redistributed(
    trajectories: Sequence[CreditTrajectory], tasks: Sequence[Sequence[int]], judge: Judge, settings: JudgeSignal
) -> tuple[list[Array], dict[str, float]]:
    """Ask for verdicts on B trajectories. Criteria that no attempt at a task has failed say nothing and are left out.

    They are kept for an attempt that is compared with no other, whose reward is its advantage.

    Returns B arrays (T_i,) of advantages, NaN for trajectories without a valid answer, and metrics.
    """
    criteria = {str(number): text for number, text in enumerate(settings.criteria, 1)}
    asked: list[tuple[int, bool]] = []
    prompts: list[str] = []
    schema: Mapping[str, Any] = {}
    for index in (index for members in tasks for index in members):
        order = sorted(criteria, key=lambda name: draw(settings.seed, criteria[name]))
        again = draw("twice", settings.seed, trajectories[index].id or index) < settings.twice and len(order) > 1
        for second, names in enumerate([order, order[::-1]] if again else [order]):
            text, schema = rubric_prompt(
                trajectories[index],
                {name: criteria[name] for name in names},
                limit=settings.characters,
                outcome=settings.show_outcome,
                gold=settings.show_gold,
            )
            prompts.append(text)
            asked.append((index, bool(second)))

    def check(number: int, value: Any) -> None:
        check_ids(value["verdicts"], list(criteria))
        count = len(trajectories[asked[number][0]].turns)
        for entry in value["verdicts"]:
            if wrong := [turn for turn in entry["turns"] if not 1 <= turn <= count]:
                raise ValueError(f"criterion {entry['id']} cites turn {wrong[0]}: expected turns 1 to {count}")

    found: dict[int, Verdicts] = {}
    equal: list[bool] = []
    for (index, second), answer in zip(asked, judge(prompts, schema, check=check), strict=True):
        if answer is None:
            continue
        verdicts = {
            str(one["id"]): (str(one["verdict"]), [int(turn) for turn in one["turns"]]) for one in answer["verdicts"]
        }
        if not second:
            found[index] = verdicts
        elif index in found:
            equal += [verdicts[name][0] == found[index][name][0] for name in criteria]
    values = [np.full(len(one.turns), np.nan) for one in trajectories]
    inert = 0
    for members in tasks:
        known = [index for index in members if index in found]
        kept = list(criteria)
        if len(known) > 1:
            kept = [name for name in criteria if any(found[index][name][0] == "fail" for index in known)]
        levels = _advantages([_reward(found[index], kept) for index in known])
        for index, level in zip(known, levels.tolist(), strict=True):
            kept_verdicts = {name: found[index][name] for name in kept}
            values[index] = redistribute(level, kept_verdicts, _tokens(trajectories[index]))
            inert += bool((values[index] == level).all())
    stats = {"judge/prompts": float(len(prompts))}
    if found:
        stats["judge/inert"] = inert / len(found)
    if equal:
        stats["judge/agreement"] = float(np.mean(equal))
    return values, stats


def redistribute(advantage: float, verdicts: Verdicts, tokens: Sequence[int]) -> Array:
    """Return the advantage of each turn, (T,), from that of the trajectory.

    A turn's weight is the share of passed among the verdicts that cite it (the mean of the others' where none does), or
    of failed ones if the advantage is negative. Without a citation, and with weights of 0, every turn keeps the
    advantage. `tokens`: number of tokens of each turn; a turn without tokens gets 0.
    """
    passed, cited = np.zeros(len(tokens)), np.zeros(len(tokens))
    for verdict, turns in verdicts.values():
        for turn in set(turns) if verdict != "none" else ():
            cited[turn - 1] += 1
            passed[turn - 1] += verdict == "pass"
    counts = np.asarray(tokens, dtype=np.float64)
    quality = np.divide(passed, cited, out=np.zeros(len(tokens)), where=cited > 0)
    if not (cited > 0).any():
        return np.full(len(tokens), advantage)
    quality[cited == 0] = quality[cited > 0].mean()
    weights = np.where(counts > 0, quality if advantage >= 0 else 1.0 - quality, 0.0)
    if weights.sum() == 0:
        return np.full(len(tokens), advantage)
    shares = advantage * counts.sum() * weights / weights.sum()
    return np.asarray(np.divide(shares, counts, out=np.zeros(len(tokens)), where=counts > 0))


def _reward(verdicts: Verdicts, kept: Sequence[str]) -> float:
    said = [verdicts[name][0] for name in kept]
    passed, failed = said.count("pass"), said.count("fail")
    return (passed - failed) / (passed + failed) if passed + failed else 0.0


def _advantages(rewards: Sequence[float]) -> Array:
    """GRPO's normalisation of the rewards of a group; one alone keeps its reward, equal ones have 0."""
    array = np.asarray(rewards, dtype=np.float64)
    if len(array) < 2:
        return array
    return np.asarray((array - array.mean()) / (array.std(ddof=1) + EPS) if np.ptp(array) > 0 else np.zeros(len(array)))


def _tokens(trajectory: CreditTrajectory) -> list[int]:
    """Number of tokens of each turn; 1 each, if they are unknown for any."""
    known = [None if turn.token_ids is None else len(turn.token_ids) for turn in trajectory.turns]
    return [1] * len(known) if None in known else [count or 0 for count in known]
