"""LLM-as-Repairer (AutoTraj, section 5 of its method): repair prompts, and acceptance of repairs.

The repairer gets the task, its tools and the trajectory, and solves the task again. Its calls are executed in the same
rollout loop as all others, so the results in a repaired trajectory are real. `rewright.pipeline.stages.repair` runs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from rewright.core.records import Message, Quality, RepairMode, Task, ToolCall, Trajectory, Verdict
from rewright.dialects.format_check import format_problem
from rewright.judging import reason_without_gold
from rewright.rendering.transcript import transcript
from rewright.repair.quality import score_trajectory, word_count
from rewright.repair.references import DEFAULT, unseen_reference
from rewright.repair.settings import QualitySettings
from rewright.sandbox.errors import error_kind

__all__ = ["INSTRUCTIONS", "RULES", "SPLICE_RULES", "Decision", "checker_error", "decide", "repair_task"]

INSTRUCTIONS: Final[dict[RepairMode, str]] = {
    "wrong_answer": (
        "The attempt above ends with a wrong answer. Find where it fails and why: a misread question, a slip of logic "
        "or arithmetic, a tool used wrongly or not at all; and how the error spreads."
    ),
    "low_quality": (
        "The attempt above is right but poorly written. Find what is redundant, unclear, repeated or uncertain."
    ),
}
RULES: Final = (
    "Then write a fresh, self-contained solution of the task, from the start and better: call a tool only where it is "
    "needed, at most {calls} calls, think after each result, do not hedge, and give exactly one final answer. Your "
    "reader sees the task only: never mention the attempt, what was wrong with it, or that you know the right answer."
)
"""The default end of the repairer's prompt (`repair.rules`)."""
SPLICE_RULES: Final = (
    "The first {kept} turns of the attempt are kept: they stand below, with the results of their calls. Go on from "
    "there and finish the solution: call a tool only where it is needed, at most {calls} calls in all, think after "
    "each result, do not hedge, and give exactly one final answer. Your reader sees the task and these turns only: "
    "never mention the attempt, what was wrong with it, or that you know the right answer."
)
"""The same for a splice that keeps turns."""
MAX_PHRASE_CHARACTERS: Final = 80
"""Maximum length of a refused phrase in the reason."""


class Decision(msgspec.Struct, frozen=True):
    """Whether a repair attempt is accepted, the reason, and its quality if it was scored."""

    accepted: bool
    reason: str
    quality: Quality | None = None


def repair_task(
    task: Task,
    attempt: Trajectory,
    mode: RepairMode,
    *,
    calls: int = 3,
    show_gold: bool = False,
    escape: Callable[[str], str] | None = None,
    rules: str = RULES,
    error: str | None = None,
    kept: int = 0,
) -> Task:
    """Build the repairer's task: the original task with the attempt and instructions added to the user's last message.

    They are a user message of their own if the task ends with another message: with the assistant's greeting, for
    example, where a simulated user opens the conversation.

    Args:
        task: the original task.
        attempt: the trajectory to repair.
        mode: selects the instructions.
        calls: number of calls that the prompt allows.
        show_gold: show the gold answers.
        escape: `Rollout.escape` of the repairer, which escapes control tokens in the attempt.
        rules: end of the prompt; `{calls}` and `{kept}` in it are replaced by these numbers.
        error: what the checker says of the attempt (`checker_error`); None: nothing.
        kept: number of turns of the attempt that the repair begins with.
    """
    parts = [f"Attempt:\n{transcript(attempt, escape)}", INSTRUCTIONS[mode]]
    if error is not None:
        parts.append(f"The checker says: {escape(error) if escape else error}")
    if show_gold and task.gold.answers:
        parts.append(f"The right answer is {' or '.join(task.gold.answers)}.")
    parts.append(rules.replace("{calls}", str(calls)).replace("{kept}", str(kept)))
    messages = [*task.messages]
    last: Message = {"role": "user"}
    if messages and messages[-1].get("role") == "user":
        last = messages.pop()
        parts.insert(0, str(last["content"]))
    return msgspec.structs.replace(task, messages=(*messages, {**last, "content": "\n\n".join(parts)}))


def checker_error(
    task: Task, attempt: Trajectory, verdict: Verdict | None, dialect: str, *, show_gold: bool = False
) -> str | None:
    """Return what the checker says of an attempt: what is wrong with its format, else the reason of its verdict.

    Unless gold answers are shown, a reason is left out or shortened that says something of the ground truth
    (`reason_without_gold`). None if there is nothing to say.
    """
    problem = format_problem(attempt, dialect)
    if problem is not None:
        return problem
    if verdict is None or verdict.correct or not verdict.reason:
        return None
    reason = verdict.reason if show_gold else reason_without_gold(task, verdict.reason)
    return " ".join(reason.split()) if reason else None


def decide(
    original: Trajectory,
    original_quality: Quality,
    repaired: Trajectory,
    verdict: Verdict,
    mode: RepairMode,
    *,
    dialect: str,
    settings: QualitySettings,
    low_quality_threshold: float = 0.86,
    wrong_answer_threshold: float = 0.8,
    task: Task | None = None,
    refused_phrases: Sequence[str] = (DEFAULT,),
    refused_first_phrases: Sequence[str] = (DEFAULT,),
) -> Decision:
    """Accept or reject one repair attempt with AutoTraj's thresholds (all comparisons are strict).

    A repair must be well formed and correct. Its total quality must exceed the threshold of the mode and, for
    "low_quality", the original's total. L* of the length score is the repair's length for "wrong_answer", and the
    shorter of original and repair for "low_quality".

    A repair with a call to a recorded tool of which there is no result is rejected, whatever its answer.

    A correct repair that refers to the attempt, the correction or the gold answer is rejected (`unseen_reference`),
    because the student sees only `task`. Phrases that occur in the task are allowed.

    Args:
        original: the trajectory that was repaired.
        original_quality: its quality.
        repaired: the repair attempt.
        verdict: the verdict on the attempt.
        mode: why the original was repaired.
        dialect: name of the dialect of both trajectories.
        settings: quality settings.
        low_quality_threshold: total quality in [0, 1] that a repair of mode "low_quality" must exceed.
        wrong_answer_threshold: total quality in [0, 1] that a repair of mode "wrong_answer" must exceed.
        task: the task as seen by the student; None: no phrase is allowed.
        refused_phrases: regular expressions for all turns.
        refused_first_phrases: regular expressions for the first turn.

    Returns the decision with its reason. Raises ValueError for an invalid expression, and InputError for a quality
    dimension that returns a value outside [0, 1].
    """
    if repaired.failure is not None:
        return Decision(accepted=False, reason=f"{repaired.failure.kind} error: {repaired.failure.message}")
    unrecorded = _unrecorded_call(repaired)
    if unrecorded is not None:
        called = f"{unrecorded.name} {json.dumps(unrecorded.arguments, ensure_ascii=False)}"
        return Decision(
            accepted=False, reason=f"needs a call that cannot be run and of which the log has no result: {called[:200]}"
        )
    problem = format_problem(repaired, dialect)
    if problem is not None:
        return Decision(accepted=False, reason=f"format: {problem}")
    words = word_count(repaired)
    shortest = words if mode == "wrong_answer" else min(words, word_count(original))
    quality = score_trajectory(repaired, shortest, settings, dialect=dialect)
    if not verdict.correct:
        return Decision(accepted=False, reason=f"wrong: {verdict.reason}", quality=quality)
    asked = task or Task(id=repaired.task_id, messages=())
    phrase = unseen_reference(asked, repaired, refused_phrases, refused_first_phrases)
    if phrase is not None:
        reason = f"refers to what the student does not see: {phrase[:MAX_PHRASE_CHARACTERS]!r}"
        return Decision(accepted=False, reason=reason, quality=quality)
    threshold = wrong_answer_threshold if mode == "wrong_answer" else low_quality_threshold
    if quality.total <= threshold:
        return Decision(
            accepted=False, reason=f"quality {quality.total:.4f} is not above {threshold:g}", quality=quality
        )
    if mode == "low_quality" and quality.total <= original_quality.total:
        reason = f"quality {quality.total:.4f} is not above the original's {original_quality.total:.4f}"
        return Decision(accepted=False, reason=reason, quality=quality)
    return Decision(accepted=True, reason=f"correct, quality {quality.total:.4f}", quality=quality)


def _unrecorded_call(trajectory: Trajectory) -> ToolCall | None:
    """Return the first call to a recorded tool of which there is no result: its error is not the tool's answer."""
    pairs = (pair for turn in trajectory.turns for pair in zip(turn.calls, turn.results, strict=False))
    return next((call for call, result in pairs if error_kind(result) == "not_recorded"), None)


Mode = Literal["wrong_answer", "low_quality"]


def mode_of(quality: Quality) -> Mode | None:
    """Return the repair mode of a scored candidate, or None for a kept one."""
    if quality.selected == "wrong":
        return "wrong_answer"
    return "low_quality" if quality.selected == "low" else None
