"""LLM-as-Repairer (AutoTraj section 3.3): the prompt. Work in progress: the stage follows."""

from __future__ import annotations

from typing import Final

from rewright.records import RepairMode, Task, Trajectory
from rewright.transcript import transcript

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
    "Then solve the task again from the start, better: call a tool only where it is needed, at most {calls} calls, "
    "think after each result, do not hedge, and give exactly one final answer."
)


def repair_task(task: Task, attempt: Trajectory, mode: RepairMode, *, calls: int = 10, show_gold: bool = False) -> Task:
    """The task as the repairer is asked it: the same tools, and the attempt in the last message."""
    import msgspec

    parts = [f"Attempt:\n{transcript(attempt)}", INSTRUCTIONS[mode]]
    if show_gold and task.gold.answers:
        parts.append(f"The right answer is {' or '.join(task.gold.answers)}.")
    parts.append(RULES.format(calls=calls))
    last = dict(task.messages[-1])
    last["content"] = "\n\n".join([str(last["content"]), *parts])
    return msgspec.structs.replace(task, messages=(*task.messages[:-1], last))
