"""A trajectory as plain text, without any dialect's tags: for a repairer to read, for pictures, for people."""

from __future__ import annotations

import json
from collections.abc import Callable

from rewright.dialects.hermes import split_thought
from rewright.records import Trajectory

__all__ = ["transcript"]


def transcript(trajectory: Trajectory, neutralise: Callable[[str], str] | None = None) -> str:
    """Every turn as lines `thought:`, `call:`, `result:`, then `answer:` or how the trajectory ended.

    Where the user spoke again: `said:`, what the model had ended its turn with, and `user:`.

    `neutralise` (`Renderer.neutralise`) is for a transcript that a model reads: results must not bring control tokens.
    """
    lines: list[str] = []
    for turn in trajectory.turns:
        thought = split_thought(turn.opening + turn.text)[0].strip()
        if thought:
            lines.append(f"thought: {thought}")
        for index, call in enumerate(turn.calls):
            if call.error is None:
                lines.append(f"call: {call.name} {json.dumps(call.arguments, ensure_ascii=False)}")
            else:
                lines.append(f"call: {call.raw.strip()}")
            if index < len(turn.results):
                content = turn.results[index].content
                lines.append(f"result: {neutralise(content) if neutralise else content}")
        if turn.follow_up is not None:
            if not turn.calls:
                lines.append(f"said: {split_thought(turn.opening + turn.text)[1].strip()}")
            lines += [f"{message['role']}: {message['content']}" for message in turn.follow_up.messages]
    if trajectory.answer is not None:
        lines.append(f"answer: {trajectory.answer}")
    else:
        lines.append(f"no answer ({trajectory.stop_reason.replace('_', ' ')})")
    return "\n".join(lines)
