"""`judge_trajectory`: the one place that turns a trajectory into a verdict. Judges are chosen by `Task.judge`.

Names: `exact`, `math`, `qa`, `token_set_f1` compare the answer with `gold.answers`; `solve` rates the calls against
`gold.outputs` (outcome = strict Solve-F1); `reasoning_gym` asks that package's scorer; `bfcl` runs the calls again and
asks that package's multi-turn checker; `"package.module:function"` is a
judge of the user's own, called as `function(answer, golds) -> Judgement`. Solve metrics are in every verdict whose task
has `gold.outputs`. An empty answer is wrong under every judge that reads answers.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from rewright.errors import InputError, JudgeError, RewrightError
from rewright.judging.base import AnswerJudge, Judgement, shown
from rewright.judging.exact import exact
from rewright.judging.mathematics import mathematics
from rewright.judging.qa import qa, token_set_f1
from rewright.judging.solve import solve_metrics
from rewright.judging.text import final_answer
from rewright.records import Task, Trajectory, Verdict

__all__ = ["ANSWER_JUDGES", "JUDGE_NAMES", "judge_answer", "judge_trajectory", "load_function"]

ANSWER_JUDGES: Mapping[str, AnswerJudge] = {
    "exact": exact,
    "math": mathematics,
    "qa": qa,
    "token_set_f1": token_set_f1,
}
JUDGE_NAMES = (*ANSWER_JUDGES, "solve", "reasoning_gym", "bfcl")


@lru_cache(maxsize=64)
def load_function(path: str, what: str) -> Callable[..., Any]:
    """The function at `"package.module:function"`. `InputError` says what is wrong with the path of a `what`."""
    module, colon, name = path.partition(":")
    if not colon or not module or not name:
        raise InputError(f"{what} {path!r}: expected an import path of the form package.module:function")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as problem:
        raise InputError(f"{what} {path!r}: {problem}") from problem
    if not callable(function):
        raise InputError(f"{what} {path!r}: it is a {type(function).__name__}, expected a function")
    return function  # type: ignore[no-any-return]


def _answer_judge(name: str) -> AnswerJudge:
    judge = ANSWER_JUDGES.get(name)
    if judge is not None:
        return judge
    if ":" in name:
        return load_function(name, "judge")
    raise InputError(f"unknown judge {name!r}: expected one of {', '.join(JUDGE_NAMES)} or package.module:function")


def judge_answer(judge: str, answer: str | None, golds: Sequence[str]) -> Judgement:
    r"""How right `answer` is. The last `\\boxed{}` of the answer is what counts, if it has one.

    Raises `InputError` for an unknown judge or for golds without content; never because of the answer.
    """
    function = _answer_judge(judge)
    golds = [gold for gold in golds if gold.strip()]
    if not golds:
        raise InputError("no gold answer to compare with: expected at least one that is not empty")
    content = final_answer(answer)
    if not content:
        return Judgement(0.0, "no answer" if answer is None else "the answer is empty")
    try:
        judgement = function(content, golds)
    except RewrightError:
        raise
    except Exception as problem:
        raise JudgeError(
            f"judge {judge!r} failed on {shown(content)}: {type(problem).__name__}: {problem}"
        ) from problem
    if not 0.0 <= judgement.outcome <= 1.0:
        raise JudgeError(f"judge {judge!r} returned the outcome {judgement.outcome}: expected a number in [0, 1]")
    return judgement


def _reasoning_gym(task: Task, answer: str) -> Judgement:
    from rewright.judging import process

    metadata = task.metadata
    dataset, entry = metadata.get("dataset"), metadata.get("entry")
    if not isinstance(dataset, str) or not isinstance(entry, dict):
        raise InputError(f"task {task.id}: judge reasoning_gym needs metadata.dataset (a name) and metadata.entry")
    if len(answer) > 100_000:
        return Judgement(0.0, "the answer is longer than 100000 characters")
    settings = metadata.get("settings") or {}
    reply = process.ask("reasoning_gym", {"answer": answer, "dataset": dataset, "entry": entry, "settings": settings})
    if "missing" in reply:
        raise InputError("judge reasoning_gym needs the package reasoning-gym: pip install reasoning-gym")
    return Judgement(float(reply["outcome"]), str(reply["reason"]))


def _bfcl(task: Task, trajectory: Trajectory) -> Judgement:
    from rewright.benchmarks.bfcl import INSTALL
    from rewright.judging import process

    entry = task.metadata.get("entry")
    if not isinstance(entry, str):
        raise InputError(f"task {task.id}: judge bfcl needs metadata.entry, the id of the package's entry")
    exchanges = [
        [[(call.name, call.arguments) for call in turn.calls if call.error is None] for turn in turns]
        for turns in trajectory.exchanges
    ]
    reply = process.ask("bfcl", {"entry": entry, "exchanges": exchanges})
    if "missing" in reply:
        raise InputError(f"judge bfcl needs the package bfcl-eval: {INSTALL}")
    return Judgement(float(reply["outcome"]), str(reply["reason"]))


def judge_trajectory(task: Task, trajectory: Trajectory) -> Verdict:
    """The verdict on one trajectory. Never raises on what a model wrote.

    `Verdict.answer` is the text that was compared (the content of the answer's box). Raises `InputError` for a task
    that can't be judged (unknown judge, no gold) and `JudgeError` where the judge's process can't start.
    """
    outputs = task.gold.outputs
    metrics = solve_metrics(trajectory, outputs) if outputs else {}
    content = final_answer(trajectory.answer) if trajectory.answer is not None else None
    if task.judge == "solve":
        if not outputs:
            raise InputError(f"task {task.id}: judge solve needs gold.outputs, and the task has none")
        f1 = metrics["solve_f1_strict"]
        judgement = Judgement(f1, f"strict Solve-F1 {f1:.3f} over {len(trajectory.calls)} calls")
    elif task.judge == "bfcl":
        judgement = _bfcl(task, trajectory)
    elif not content:
        if task.judge != "reasoning_gym":
            _answer_judge(task.judge)
        reason = "the answer is empty" if content is not None else f"no answer (stop reason: {trajectory.stop_reason})"
        judgement = Judgement(0.0, reason)
    elif task.judge == "reasoning_gym":
        judgement = _reasoning_gym(task, content)
    elif not task.gold.answers:
        raise InputError(f"task {task.id}: judge {task.judge} needs gold.answers, and the task has none")
    else:
        judgement = judge_answer(task.judge, content, task.gold.answers)
    return Verdict(
        trajectory_id=trajectory.id,
        outcome=judgement.outcome,
        reason=judgement.reason,
        answer=content,
        metrics={**judgement.metrics, **metrics},
    )
