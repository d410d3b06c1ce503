"""Export to ATIF, the Agent Trajectory Interchange Format of Harbor (version 1.8): one trajectory per line.

Nothing of a trajectory is lost. What ATIF has no field for is in `extra`:

- `extra` of the trajectory: `task_id`, `reward`, `gold_answers`, `gold_calls`, and under `rewright` all else. Our
  reader restores the trajectory from it (`rewright.importers.own_extras`).
- `extra` of an agent's step: `suffix_token_ids`, the tokens between the turn and the next one. The loss mask is 1 for
  `completion_token_ids` and 0 for the tokens of the first prompt and of the suffixes. `weights_version`, in RL.
- A malformed call has no `function_name` and no arguments; `extra` has its `error`, its text `raw`, and the name that
  was found in it.
- `extra` of a result: its `error`.

Messages of the prompt that the assistant said (examples) are steps with `is_copied_context`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rewright.core import version
from rewright.core.records import Message
from rewright.exports.attempts import Attempt, RunAttempts, SpokenCall, SpokenTurn, text_of
from rewright.exports.base import AttemptExporter, Written, write_attempts

__all__ = ["EXPORTER", "row"]

VERSION: Final = "ATIF-v1.8"


def _write(attempts: RunAttempts, out: Path) -> list[Written]:
    return write_attempts(attempts, out, "{}.atif.jsonl", lambda attempt, _: row(attempt, attempts.name))


def row(attempt: Attempt, session: str) -> dict[str, Any] | None:
    """Convert a trajectory, or return None for one without a turn. `session`: name of the run."""
    one = attempt.trajectory
    if not one.turns:
        return None
    steps = [*_prompt_steps(attempt.prompt), *_turn_steps(attempt)]
    for number, step in enumerate(steps, 1):
        step["step_id"] = number
    prompt_tokens, completion_tokens = attempt.usage
    extra: dict[str, Any] = {"task_id": one.task_id}
    if attempt.reward is not None:
        extra["reward"] = attempt.reward
    return {
        "schema_version": VERSION,
        "session_id": session,
        "trajectory_id": one.id,
        "agent": {
            "name": "rewright",
            "version": version.VERSION,
            "model_name": one.provenance.model,
            "tool_definitions": attempt.schemas,
            "extra": {"dialect": attempt.dialect.name},
        },
        "steps": steps,
        "final_metrics": {
            "total_prompt_tokens": prompt_tokens,
            "total_completion_tokens": completion_tokens,
            "total_steps": len(steps),
        },
        "extra": {**extra, **attempt.gold(), "rewright": attempt.whole()},
    }


def _prompt_steps(messages: list[Message]) -> Iterator[dict[str, Any]]:
    step: dict[str, Any] | None = None
    for number, message in enumerate(messages):
        role, text = message["role"], text_of(message.get("content"))
        if role == "tool" and step is not None and step["source"] == "agent":
            results = step.setdefault("observation", {"results": []})["results"]
            calls = step.get("tool_calls") or []
            identity = calls[len(results)]["tool_call_id"] if len(results) < len(calls) else None
            results.append({"content": text} | ({"source_call_id": identity} if identity else {}))
            continue
        if step is not None:
            yield step
        step = _message_step(role, text)
        if role == "assistant":
            step |= {"source": "agent", "is_copied_context": True}
            calls = [
                {
                    "tool_call_id": str(call.get("id") or f"prompt_{number}_{index}"),
                    "function_name": str(call["function"]["name"]),
                    "arguments": call["function"]["arguments"],
                }
                for index, call in enumerate(message.get("tool_calls") or ())
            ]
            step |= {"tool_calls": calls} if calls else {}
    if step is not None:
        yield step


def _message_step(role: str, text: str) -> dict[str, Any]:
    return {"source": "system" if role in ("system", "developer") else "user", "message": text}


def _turn_steps(attempt: Attempt) -> Iterator[dict[str, Any]]:
    one = attempt.trajectory
    context = None if one.prompt_ids is None else list(one.prompt_ids)
    for spoken, (prompt_tokens, completion_tokens) in zip(attempt.turns, attempt.tokens_per_turn(), strict=True):
        turn = spoken.turn
        counts = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        metrics: dict[str, Any] = {key: count for key, count in counts.items() if count is not None}
        if turn.token_ids is not None:
            metrics |= {} if context is None else {"prompt_token_ids": list(context)}
            metrics |= {"completion_token_ids": turn.token_ids}
            metrics |= {} if turn.log_probs is None else {"logprobs": turn.log_probs}
        elif context is not None and turn is one.turns[0]:
            metrics |= {"prompt_token_ids": list(context)}
        step: dict[str, Any] = {
            "source": "agent",
            "message": spoken.text,
            "metrics": metrics,
            "extra": {"stop": turn.stop, **_kept(spoken)},
            "llm_call_count": 1,
        }
        if spoken.thought:
            step["reasoning_content"] = spoken.thought
        if spoken.calls:
            step["tool_calls"] = [_call(call) for call in spoken.calls]
        results = [_result(call) for call in spoken.calls if call.result is not None]
        if results:
            step["observation"] = {"results": results}
        yield step
        for message in spoken.follow_up:
            yield _message_step(message["role"], text_of(message.get("content")))
        if context is not None:
            context += [*(turn.token_ids or ()), *turn.suffix_ids]


def _kept(spoken: SpokenTurn) -> dict[str, Any]:
    turn = spoken.turn
    kept: dict[str, Any] = {"opening": turn.opening} if turn.opening else {}
    if turn.suffix_ids:
        kept["suffix_token_ids"] = turn.suffix_ids
    if turn.weights_version is not None:
        kept["weights_version"] = turn.weights_version
    if turn.follow_up is not None and turn.follow_up.tools:
        kept["new_tools"] = [tool.schema for tool in turn.follow_up.tools]
    return kept


def _call(spoken: SpokenCall) -> dict[str, Any]:
    call = spoken.call
    if call.error is None:
        return {"tool_call_id": spoken.id, "function_name": call.name, "arguments": call.arguments}
    extra = {"error": call.error, "raw": call.raw, "name": call.name}
    return {"tool_call_id": spoken.id, "function_name": "", "arguments": {}, "extra": extra}


def _result(spoken: SpokenCall) -> dict[str, Any]:
    result = spoken.result
    assert result is not None
    extra: dict[str, Any] = {"error": result.error} if result.error is not None else {}
    extra |= {"seconds": result.seconds} if result.seconds else {}
    return {"source_call_id": spoken.id, "content": result.content} | ({"extra": extra} if extra else {})


EXPORTER: Final = AttemptExporter(_write)
