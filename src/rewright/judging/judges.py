"""`judge_trajectory`: the one place that turns a trajectory into a verdict. Judges are chosen by `Task.judge`.

Names: `exact`, `math`, `qa`, `token_set_f1`, `answer_correctness` compare the answer with `gold.answers`; `solve` and
`solve_parity` rate the calls against `gold.outputs` (outcome = strict Solve-F1, or FTRL's); `reasoning_gym` asks that
package's scorer; `bfcl` runs the calls again and asks that package's multi-turn checker; `"package.module:function"` is
a judge of the user's own, called as `function(answer, golds) -> Judgement` in a process of its own, within `seconds`.
Solve metrics are in every verdict whose task has `gold.outputs`. An empty answer is wrong under every judge that reads
answers.

A task file can name any function of any package. Whoever reads task files asks `check_judge` first, which lets through
what the user has named; `judge_answer` and `judge_trajectory` run what they are given.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Mapping, Sequence
from functools import partial

from rewright.core.answer_text import final_answer, shown
from rewright.core.errors import InputError, JudgeError, RewrightError
from rewright.core.import_paths import load_function
from rewright.core.records import Task, Trajectory, Verdict
from rewright.core.trust import is_own, names_one_of
from rewright.dialects.base import answer_cut_off
from rewright.judging.base import AnswerJudge, Judgement
from rewright.judging.correctness import answer_correctness
from rewright.judging.exact import exact
from rewright.judging.mathematics import mathematics
from rewright.judging.qa import qa, token_set_f1
from rewright.judging.solve import solve_metrics
from rewright.workers import pool as process
from rewright.workers.pool import OWN_SECONDS, run_own

__all__ = [
    "ANSWER_JUDGES",
    "GENERATED_JUDGES",
    "JUDGE_NAMES",
    "SOLVE_JUDGES",
    "check_judge",
    "judge_answer",
    "judge_trajectory",
]

ANSWER_JUDGES: Mapping[str, AnswerJudge] = {
    "exact": exact,
    "math": mathematics,
    "qa": qa,
    "token_set_f1": token_set_f1,
    "answer_correctness": answer_correctness,
}
SOLVE_JUDGES = ("solve", "solve_parity")
GENERATED_JUDGES = ("reasoning_gym", "bfcl")
JUDGE_NAMES = (*ANSWER_JUDGES, *SOLVE_JUDGES, *GENERATED_JUDGES)


def check_judge(name: str, packages: Sequence[str] = ()) -> None:
    """Raise `InputError` unless `name` is a judge of ours, or a function of the user's own `packages` that is there."""
    if name in JUDGE_NAMES:
        return
    if ":" not in name:
        raise InputError(f"unknown judge {name!r}: expected one of {', '.join(JUDGE_NAMES)} or package.module:function")
    if is_own(name):
        raise InputError(f"judge {name!r} is a function of Rewright: expected one of {', '.join(JUDGE_NAMES)}")
    if not names_one_of(name, packages):
        package = name.partition(":")[0]
        raise InputError(
            f"judge {name!r} is code, which runs only if you have named its package: expected {package} in `judges`"
        )
    load_function(name, "judge")


def _answer_judge(name: str, seconds: float) -> AnswerJudge:
    judge = ANSWER_JUDGES.get(name)
    if judge is not None:
        return judge
    check_judge(name, [name])
    return partial(_own, name, seconds)


def _own(path: str, seconds: float, answer: str, golds: Sequence[str]) -> Judgement:
    """What a user's own judge says, in a process of its own. In this one where no other could import it (notebooks)."""
    if not _has_a_file(path.partition(":")[0]):
        found = load_function(path, "judge")(answer, golds)
        if not isinstance(found, Judgement):
            raise JudgeError(f"judge {path!r} returned {found!r:.80}, expected a rewright.judging.Judgement")
        return found
    return Judgement(**run_own(path, answer, golds, seconds))


def _has_a_file(module: str) -> bool:
    try:
        spec = None if module == "__main__" else importlib.util.find_spec(module)
    except ValueError:  # made by hand, without a specification
        return False
    return spec is not None and spec.has_location


def judge_answer(judge: str, answer: str | None, golds: Sequence[str], *, seconds: float = OWN_SECONDS) -> Judgement:
    r"""How right `answer` is. The last `\\boxed{}` of the answer is what counts, if it has one.

    A judge of the user's own has `seconds`. Raises `InputError` for an unknown judge or for golds without content and
    `JudgeError` for a judge that fails; never because of the answer.
    """
    function = _answer_judge(judge, seconds)
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
    for name, value in judgement.metrics.items():
        if not math.isfinite(value):
            raise JudgeError(f"judge {judge!r} returned {value} as the metric {name!r}: expected a finite number")
    return judgement


def _reasoning_gym(task: Task, answer: str) -> Judgement:
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
    from rewright.benchmarks.bfcl.tasks import INSTALL

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


def judge_trajectory(task: Task, trajectory: Trajectory, *, seconds: float = OWN_SECONDS) -> Verdict:
    """The verdict on one trajectory. Never raises on what a model wrote, unless a judge of the user's own does.

    `Verdict.answer` is the text that was compared (the content of the answer's box). A trajectory that an engine or a
    tool server broke is not solved. Raises `InputError` for a task that can't be judged (unknown judge, no gold) and
    `JudgeError` where the judge's process can't start, or where a judge of the user's own raises or takes more than
    `seconds`.
    """
    outputs = task.gold.outputs
    metrics = solve_metrics(trajectory, outputs) if outputs else {}
    cut_off = answer_cut_off(trajectory)
    content = final_answer(trajectory.answer) if trajectory.answer is not None and not cut_off else None
    if task.judge in SOLVE_JUDGES:
        if not outputs:
            raise InputError(f"task {task.id}: judge {task.judge} needs gold.outputs, and the task has none")
        strict = task.judge == "solve"
        f1 = metrics["solve_f1_strict" if strict else "solve_f1"]
        kind = "strict" if strict else "FTRL's"
        judgement = Judgement(f1, f"{kind} Solve-F1 {f1:.3f} over {len(trajectory.calls)} calls")
    elif task.judge == "bfcl":
        judgement = _bfcl(task, trajectory)
    elif not content:
        if task.judge != "reasoning_gym":
            _answer_judge(task.judge, seconds)
        reason = "the answer is empty" if content is not None else f"no answer (stop reason: {trajectory.stop_reason})"
        reason = "no answer (a limit cut it off)" if cut_off else reason
        judgement = Judgement(0.0, reason)
    elif task.judge == "reasoning_gym":
        judgement = _reasoning_gym(task, content)
    elif not task.gold.answers:
        raise InputError(f"task {task.id}: judge {task.judge} needs gold.answers, and the task has none")
    else:
        judgement = judge_answer(task.judge, content, task.gold.answers, seconds=seconds)
    if trajectory.failure is not None:  # judges that read calls may find enough in what was there before
        judgement = Judgement(0.0, f"it broke: {trajectory.failure.kind} error")
    return Verdict(
        trajectory_id=trajectory.id,
        outcome=judgement.outcome,
        reason=judgement.reason,
        answer=content,
        metrics={**judgement.metrics, **metrics},
    )
