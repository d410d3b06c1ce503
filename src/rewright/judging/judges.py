"""Look up the judge named by `Task.judge` and compute verdicts with it.

A judge is registered by name (`rewright.core.registry`, kind `judge`) or referenced by import path. It is a function
`(answer, golds) -> Judgement`, an `AnswerJudge` or a `TrajectoryJudge` (`rewright.judging.base`). Judges from other
packages run in a separate process with a time limit of `seconds`. Verdicts include the Solve metrics if the task has
`gold.outputs`. An empty answer scores 0 under every judge that reads answers.

Security: a task file can reference any function of any package. Code that reads task files must call `check_judge`
first, which accepts only packages that the user allowed. `judge_answer` and `judge_trajectory` do not check.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from rewright.core.answer_text import final_answer, shown
from rewright.core.errors import InputError, JudgeError, RewrightError
from rewright.core.import_paths import load_function
from rewright.core.records import Task, Trajectory, Verdict
from rewright.core.registry import find, known
from rewright.core.trust import is_builtin_path, is_in_packages
from rewright.dialects.base import is_answer_truncated
from rewright.judging.base import AnswerJudge, Judgement, TrajectoryJudge, task_problem
from rewright.judging.extraction import find_extractor
from rewright.judging.own import DEFAULT_JUDGE_SECONDS, import_path_of, in_separate_process
from rewright.judging.solve import solve_metrics

__all__ = [
    "answer_judges",
    "check_judge",
    "find_judge",
    "is_self_contained",
    "judge_answer",
    "judge_needs_consent",
    "judge_trajectory",
    "reason_without_gold",
    "uses_builtin_code",
]


_NO_ANSWER = re.compile(r"no answer \((?:stop reason: \w+|truncated by a limit)\)|the answer is empty")
"""Reasons of verdicts without a judge's own."""


def check_judge(name: str, packages: Sequence[str] = ()) -> None:
    """Raise `InputError` unless `name` is a registered judge or an importable judge in one of `packages`."""
    if ":" not in name:
        find("judge", name)
        return
    if is_builtin_path(name):
        raise InputError(f"judge {name!r} is a function of Rewright: expected one of {', '.join(known('judge'))}")
    if not is_in_packages(name, packages):
        package = name.partition(":")[0]
        raise InputError(
            f"judge {name!r} is code, which runs only if you allow its package: expected {package} in `judges`"
        )
    load_function(name, "judge")


def find_judge(name: str, seconds: float = DEFAULT_JUDGE_SECONDS) -> AnswerJudge | TrajectoryJudge:
    """Return the judge with that name or import path. Judges of other packages are called in a separate process.

    Raises `InputError` for an unknown name or an import path that is not a judge.
    """
    check_judge(name, [name])
    registered = load_function(name, "judge") if ":" in name else find("judge", name)
    judge = registered if isinstance(registered, AnswerJudge | TrajectoryJudge) else AnswerJudge(registered)
    if ":" not in name and _is_builtin(registered):
        return judge
    path = name if ":" in name else import_path_of(judge.function)
    return judge if path is None else in_separate_process(judge, path, seconds)


def answer_judges() -> list[str]:
    """Return the sorted names of the registered answer judges."""
    return [name for name in known("judge") if not isinstance(find("judge", name), TrajectoryJudge)]


def is_self_contained(name: str) -> bool:
    """Return True for a built-in judge that needs no other package, which can be called when reading a stored run."""
    if ":" in name or name not in known("judge"):
        return False
    registered = find("judge", name)
    return _is_builtin(registered) and (not isinstance(registered, TrajectoryJudge) or registered.self_contained)


@lru_cache(maxsize=64)
def judge_needs_consent(name: str) -> bool:
    """Return True for a registered judge that runs code that the task names (`TrajectoryJudge.needs_consent`)."""
    if ":" in name or name not in known("judge"):
        return False
    registered = find("judge", name)
    return isinstance(registered, TrajectoryJudge) and registered.needs_consent


def uses_builtin_code(task: Task) -> bool:
    """Return True if judging a task needs no judge, extractor or model of another package."""
    if not is_self_contained(task.judge):
        return False
    return task.extractor in (None, "judge") or _is_builtin(find_extractor(task.extractor))


def _is_builtin(judge: Any) -> bool:
    function = judge.function if isinstance(judge, AnswerJudge | TrajectoryJudge) else judge
    return is_builtin_path(getattr(getattr(function, "func", function), "__module__", None) or "")


def judge_answer(
    judge: str, answer: str | None, golds: Sequence[str], *, seconds: float = DEFAULT_JUDGE_SECONDS
) -> Judgement:
    r"""Score `answer` against `golds`. If the answer contains `\\boxed{}`, the content of the last box is compared.

    Args:
        judge: Name or import path of an answer judge.
        answer: The answer; None scores 0.
        golds: Gold answers; empty ones are ignored.
        seconds: Time limit of a judge from another package.

    Raises `InputError` for an unknown judge, a trajectory judge or if no gold answer is left, and `JudgeError` if the
    judge fails. Never raises because of the answer.
    """
    answer_judge = find_judge(judge, seconds)
    if isinstance(answer_judge, TrajectoryJudge):
        raise InputError(
            f"judge {judge} judges whole trajectories, not answers: expected one of {', '.join(answer_judges())}"
        )
    return _compare(judge, answer_judge, answer, golds)


def _compare(judge: str, answer_judge: AnswerJudge, answer: str | None, golds: Sequence[str]) -> Judgement:
    """`judge_answer` with the judge of that name."""
    golds = [gold for gold in golds if gold.strip()]
    if not golds:
        raise InputError("no gold answer to compare with: expected at least one that is not empty")
    content = final_answer(answer)
    if not content:
        return Judgement(0.0, "no answer" if answer is None else "the answer is empty")
    return _checked(judge, content, lambda: answer_judge(content, golds))


def _checked(name: str, content: str, ask: Callable[[], Judgement]) -> Judgement:
    """Call the judge and check that its numbers are in range. `content` is the answer shown in errors."""
    try:
        judgement = ask()
    except RewrightError:
        raise
    except Exception as problem:
        raise JudgeError(f"judge {name!r} failed on {shown(content)}: {type(problem).__name__}: {problem}") from problem
    if not isinstance(judgement, Judgement):
        raise JudgeError(f"judge {name!r} returned {judgement!r:.80}, expected a rewright.judging.Judgement")
    if not 0.0 <= judgement.outcome <= 1.0:
        raise JudgeError(f"judge {name!r} returned the outcome {judgement.outcome}: expected a number in [0, 1]")
    for metric, value in judgement.metrics.items():
        if not math.isfinite(value):
            raise JudgeError(f"judge {name!r} returned {value} as the metric {metric!r}: expected a finite number")
    return judgement


def _compared(task: Task, judge: AnswerJudge | TrajectoryJudge, answer: str) -> str | None:
    """Return the part of an answer that is compared; None if the extractor finds none."""
    name = judge.extractor if task.extractor == "judge" else task.extractor
    if name is None or not answer.strip():
        return final_answer(answer)
    try:
        part = find_extractor(name)(answer, task.gold.answers or ())
    except RewrightError:
        raise
    except Exception as problem:  # an extractor of another package can raise anything
        raise JudgeError(
            f"extractor {name!r} failed on {shown(answer)}: {type(problem).__name__}: {problem}"
        ) from problem
    if part is not None and not isinstance(part, str):
        raise JudgeError(f"extractor {name!r} returned {part!r:.80}: expected a text or None")
    return None if part is None else part.strip()


def reason_without_gold(task: Task, reason: str) -> str | None:
    """Return what the reason of a verdict on an attempt at `task` says without its ground truth; None: nothing.

    A judge of trajectories may quote gold calls or anything else that the task has, so that only the part counts which
    it names itself (`TrajectoryJudge.without_gold`). A reason with a gold answer, whole or shortened, gives nothing.
    Raises InputError for an unknown judge.
    """
    judge = find_judge(task.judge)
    part: str | None = reason
    if isinstance(judge, TrajectoryJudge) and not (judge.reads_answer and _NO_ANSWER.fullmatch(reason)):
        part = None if judge.without_gold is None else judge.without_gold(reason)
    if not part or any(_mentions(part, gold) for gold in task.gold.answers or ()):
        return None
    return part


def _mentions(reason: str, gold: str) -> bool:
    """Return True if a reason has a gold answer in any spelling: quoted, shortened, or without its punctuation."""
    if gold.strip() and " ".join(gold.split()).casefold() in " ".join(reason.split()).casefold():
        return True
    letters = _letters(reason)
    return any(_letters(form) and _letters(form) in letters for form in (gold, shown(gold), final_answer(gold)))


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def judge_trajectory(task: Task, trajectory: Trajectory, *, seconds: float = DEFAULT_JUDGE_SECONDS) -> Verdict:
    """Return the verdict on one trajectory. Built-in judges never raise because of model output.

    `Verdict.answer` is the text that was compared: what `Task.extractor` finds in the answer, else the content of its
    box. A trajectory with an
    infrastructure failure has outcome 0. Raises `InputError` for a task that can't be judged (unknown judge, no gold),
    and `JudgeError` if the judge's process can't start or a user-defined judge raises or exceeds `seconds`.
    """
    outputs = task.gold.outputs
    metrics = solve_metrics(trajectory, outputs) if outputs else {}
    truncated = is_answer_truncated(trajectory)
    judge = find_judge(task.judge, seconds)
    answer = trajectory.answer if not truncated else None
    content = None if answer is None else _compared(task, judge, answer)
    if answer and answer.strip() and content is None and judge.reads_answer:
        judgement = Judgement(0.0, f"the extractor {task.extractor} finds nothing to compare in {shown(answer)}")
    elif judge.reads_answer and not content:
        reason = "the answer is empty" if content is not None else f"no answer (stop reason: {trajectory.stop_reason})"
        reason = "no answer (truncated by a limit)" if truncated else reason
        judgement = Judgement(0.0, reason)
    elif (problem := task_problem(task, judge)) is not None:
        raise InputError(f"task {task.id}: {problem}")
    elif isinstance(judge, TrajectoryJudge):
        judgement = _checked(task.judge, content or "", lambda: judge(task, trajectory, content or ""))
    else:
        judgement = _compare(task.judge, judge, content, task.gold.answers or ())
    if trajectory.failure is not None:  # a trajectory judge may score the calls made before the failure
        judgement = Judgement(0.0, f"infrastructure failure: {trajectory.failure.kind} error")
    return Verdict(
        trajectory_id=trajectory.id,
        outcome=judgement.outcome,
        reason=judgement.reason,
        answer=content,
        metrics={**judgement.metrics, **metrics},
    )
