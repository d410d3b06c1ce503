"""The signal `likelihood`: how much more likely a frozen model finds the gold answer after each turn.

Before each turn, the tokens so far are followed by the opening of an answer and by the gold answer. l_t is the mean
log-probability of the gold tokens. A turn's reward is the change of a value V_t of it:

    log_ratio   V_t = ln(d_0 / d_t), d = margin - l      (TRACE)
    prob        V_t = exp(l_t)                           (IGPO)
    log_prob    V_t = l_t                                (IGPO, later version)

`delete` (LOTAPO) compares instead l before the last turn with l after a turn and its results are replaced by a marker.
Its values are advantages. The last turn, which answers, has no value of its own in any form: its outcome is added.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rewright.core.settings import NonNegativeFloat, PositiveFloat, Settings
from rewright.credit.estimators import reads
from rewright.credit.estimators_likelihood import gated
from rewright.credit.formula import as_floats
from rewright.credit.lookup import with_settings
from rewright.credit.resources import LogProb, Tokenize, needs
from rewright.credit.signals import TurnSignal
from rewright.credit.trajectories import CreditTrajectory

__all__ = ["Likelihood", "likelihood"]

Form = Literal["log_ratio", "prob", "log_prob", "delete"]
Answers = Literal["max", "logsumexp", "first"]

BLOCK: Final = 32  # trajectories whose prefixes are in memory at the same time


class Likelihood(Settings, frozen=True):
    """Settings of the signal `likelihood`."""

    form: Form = "log_ratio"
    """How a value is computed from log-probabilities."""
    answers: Answers = "max"
    """Of several gold answers: the most likely one, the log of their mean probability, or the first (IGPO)."""
    opening: str | None = None
    """Text between the tokens so far and the gold answer. Default: what begins an answer in the run's dialect."""
    margin: PositiveFloat = 0.1
    """`log_ratio`: added to the negative log-probability."""
    marker: str = "[DELETE]"
    """`delete`: text in place of a turn and its results."""
    weight: NonNegativeFloat = 0.5
    """`delete`: factor of the advantages."""
    eps: PositiveFloat = 1e-6
    """`delete`: smallest difference that counts, and added to scale and standard deviation."""


@reads("answers", "token_ids")
@with_settings(Likelihood)
@needs("log_prob", "tokenize")
def likelihood(
    trajectories: Sequence[CreditTrajectory],
    *,
    log_prob: LogProb,
    tokenize: Tokenize,
    form: Form = "log_ratio",
    answers: Answers = "max",
    opening: str | None = None,
    margin: float = 0.1,
    marker: str = "[DELETE]",
    weight: float = 0.5,
    eps: float = 1e-6,
) -> TurnSignal:
    """Compute the signal of B trajectories: kind "value", or "advantage" for the form `delete`.

    Missing are all turns of a trajectory without gold answers or token ids, and turns whose context is too long for the
    scorer; `stats` counts the causes. `tokenize.answer_form`, if any, is (text before, text after) an answer.
    """
    opening = getattr(tokenize, "answer_form", ("", ""))[0] if opening is None else opening
    counts = Counter({"scorings": 0, "answer_tokens": 0, "too_long": 0, "without_answer": 0, "without_tokens": 0})
    scores: list[list[float]] = []  # of each trajectory, the mean log-probability in each of its contexts
    causes: dict[int, str] = {}
    for start in range(0, len(trajectories), BLOCK):
        block = trajectories[start : start + BLOCK]
        targets = [_targets(one, opening, tokenize, answers) for one in block]
        between = tokenize(marker) if form == "delete" else None
        contexts = [_contexts(one, between, known, counts) for one, known in zip(block, targets, strict=True)]
        jobs = [(context, known) for own, known in zip(contexts, targets, strict=True) for context in own]
        pairs = [([*context, *head], gold) for context, known in jobs for head, gold in known]
        scored = iter(_checked(log_prob(pairs), pairs))
        for index, (one, own, known) in enumerate(zip(block, contexts, targets, strict=True), start):
            rows_of = [[next(scored) for _ in known] for _ in own]
            scores.append([_mean(found, answers, counts) for found in rows_of])
            if not one.turns:
                continue
            if not known:
                causes[index] = "it has no gold answers"
            elif not own:
                causes[index] = "it has no token ids"
            elif any(row is None for found in rows_of for row in found):
                causes[index] = "a context is too long for the scorer"
    stats = {f"likelihood/{name}": float(count) for name, count in counts.items()}
    rows, initial = [], []
    if form == "delete":
        gains = [[row[0] - without for without in row[1:]] for row in scores]
        labels = [object() if one.task_id is None else one.task_id for one in trajectories]
        for trajectory, row, values in zip(trajectories, scores, gated(gains, labels, eps), strict=True):
            rows.append(np.full(len(trajectory.turns), 0.0 if row else np.nan))
            rows[-1][_eligible(trajectory)[: len(values)]] = weight * np.array(values)
        return TurnSignal.of(rows, kind="advantage", stats=stats, causes=causes)
    for trajectory, row in zip(trajectories, scores, strict=True):
        states = np.array(row or [np.nan] * len(trajectory.turns))
        if form == "log_ratio":
            states = np.log((margin - states[:1]) / (margin - states))
        elif form == "prob":
            states = np.exp(states)
        initial.append(states[0] if len(states) else np.nan)
        rows.append(np.append(states[1:], states[-1:]))  # the last turn changes nothing
    return TurnSignal.of(rows, kind="value", initial=np.array(initial), stats=stats, causes=causes)


def _targets(
    trajectory: CreditTrajectory, opening: str, tokenize: Tokenize, rule: str
) -> list[tuple[list[int], list[int]]]:
    """The gold answers: (tokens of the opening, tokens of the answer), split where both are tokenized together."""
    head, targets = tokenize(opening), []
    for answer in list(dict.fromkeys(trajectory.answers or ()))[: 1 if rule == "first" else None]:
        whole = tokenize(opening + answer)
        shared = next((i for i, pair in enumerate(zip(head, whole, strict=False)) if pair[0] != pair[1]), len(head))
        if whole[shared:]:
            targets.append((whole[:shared], whole[shared:]))
    return targets


def _contexts(
    trajectory: CreditTrajectory, marker: list[int] | None, targets: Sequence[Any], counts: Counter[str]
) -> list[list[int]]:
    """The tokens before each turn, or with a `marker`: those before the last turn, then without each eligible turn."""
    last, whole = len(trajectory.turns) - 1, trajectory.token_ids
    if last < 0 or not targets or not whole:
        counts["without_answer" if not targets else "without_tokens"] += last >= 0
        return []
    prefixes = [trajectory.prefix_ids(turn) or [] for turn in range(last + 1)]
    if marker is None:
        return prefixes
    removed = [[*prefixes[t], *marker, *prefixes[last][len(prefixes[t + 1]) :]] for t in _eligible(trajectory)]
    return [prefixes[last], *removed]


def _eligible(trajectory: CreditTrajectory) -> list[int]:
    """The turns with calls, without the last turn."""
    return [turn for turn, entry in enumerate(trajectory.turns[:-1]) if entry.calls]


def _checked(rows: Iterable[ArrayLike | None], pairs: Sequence[Any]) -> list[NDArray[np.float64] | None]:
    """The log-probabilities as arrays. Raises ValueError unless there is one for every token, or None for a pair."""
    found = [None if row is None else as_floats(row) for row in rows]
    if len(found) != len(pairs):
        raise ValueError(f"log_prob gave {len(found)} results for {len(pairs)} continuations: expected one for each")
    for row, (_, continuation) in zip(found, pairs, strict=True):
        if row is not None and row.shape != (len(continuation),):
            raise ValueError(
                f"log_prob gave the shape {row.shape} for a continuation of {len(continuation)} tokens: expected one "
                "number for each token"
            )
    return found


def _mean(scored: Sequence[NDArray[np.float64] | None], answers: str, counts: Counter[str]) -> float:
    """The mean log-probability of the tokens of an answer, over several answers; NaN if one could not be scored."""
    rows = [row for row in scored if row is not None]
    counts.update(scorings=len(scored), answer_tokens=sum(map(len, rows)), too_long=int(len(rows) < len(scored)))
    means = np.array([row.mean() for row in rows])
    if len(rows) < len(scored) or not np.isfinite(means).all():
        return math.nan
    return float(np.logaddexp.reduce(means) - np.log(len(means)) if answers == "logsumexp" else means.max())
