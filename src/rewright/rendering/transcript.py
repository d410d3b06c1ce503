"""Format a trajectory as plain text without the tags of a dialect, for the repair prompt and for reports."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final

from rewright.core.records import Trajectory
from rewright.dialects.split import split_turn

__all__ = ["transcript"]

_CALL_OR_ANSWER: Final = re.compile(
    r"<search>.*?(?:</search>|\Z)|<(?:code|python)>.*?(?:</(?:code|python)>|\Z)"
    r"|<answer>.*?(?:</answer>|\Z)",
    re.DOTALL,
)


def transcript(trajectory: Trajectory, escape: Callable[[str], str] | None = None) -> str:
    """Format every turn as lines `thought:`, `said:`, `call:`, `result:`, then `answer:` or the stop reason.

    `said:` is text outside thoughts, calls and the answer, such as a result that the model wrote itself. Before a
    follow-up it is the whole text with which the model ended its turn, and `user:` follows.

    `escape` (`Rollout.escape`): escapes control tokens; required if a model reads the transcript.
    """
    lines: list[str] = []
    if trajectory.opening is not None:
        lines += [f"{message['role']}: {message['content']}" for message in trajectory.opening.messages]
    for turn in trajectory.turns:
        thought, rest, outside = split_turn(turn.opening + turn.text)
        ends_turn = turn.follow_up is not None and not turn.calls
        other = rest if ends_turn else _CALL_OR_ANSWER.sub("", outside)
        if turn is trajectory.turns[-1] and other.strip() == (trajectory.answer or "").strip():
            other = ""  # the whole message is the answer, which follows
        lines += [f"{name}: {text.strip()}" for name, text in (("thought", thought), ("said", other)) if text.strip()]
        for index, call in enumerate(turn.calls):
            if call.error is None:
                lines.append(f"call: {call.name} {json.dumps(call.arguments, ensure_ascii=False)}")
            else:
                lines.append(f"call: {call.raw.strip()}")
            if index < len(turn.results):
                lines.append(f"result: {turn.results[index].content}")
        if turn.follow_up is not None:
            lines += [f"{message['role']}: {message['content']}" for message in turn.follow_up.messages]
    if trajectory.answer is not None:
        lines.append(f"answer: {trajectory.answer}")
    elif trajectory.ending is None:
        ended = "it ends with its calls, which nothing executes" if trajectory.stop_reason == "called" else None
        lines.append(ended or f"no answer ({trajectory.stop_reason.replace('_', ' ')})")
    if trajectory.ending is not None:
        lines += [f"{message['role']}: {message['content']}" for message in trajectory.ending.messages]
    text = "\n".join(lines)
    return escape(text) if escape else text
