"""Export to verifiers' `traces.jsonl` (0.4, `verifiers.v1.episode.Episode`): an episode with one trace per line.

Nothing of a trajectory is lost:

- A node is a message with the tokens that it adds. The tokens of the first prompt are those of the last message before
  the first turn, and tokens between two turns are those of the last message there. `mask` is true for generated tokens.
  Generated tokens without the tokens of the prompt, which are no sequence, are in `info`.
- A malformed call has its text as arguments. If that is the JSON of an object, it has no name.
- `rewards.outcome` is the reward. What verifiers has no field for is in `info`: `gold_calls`, and under `rewright`
  all else (of each turn for instance its `weights_version`), from which our reader restores the trajectory
  (`rewright.importers.own_extras`), and `suffix_token_ids`, the tokens after a last turn without a result.

A trajectory without a turn is a trace without nodes, because verifiers adds the messages of a prompt with the turn.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import msgspec

from rewright.core.strict_json import STRICT
from rewright.exports.attempts import Attempt, RunAttempts, SpokenCall, text_of
from rewright.exports.base import AttemptExporter, Written, write_attempts

__all__ = ["EXPORTER", "row"]

VERSION: Final = "0.4.0"
"""Version of verifiers whose traces these are."""

_STOPS: Final = {
    "answered": "agent_completed",
    "no_answer": "agent_completed",
    "turn_limit": "max_turns",
    "token_limit": "max_total_tokens",
    "time_limit": "agent_timeout",
    "error": "error",
}
"""Stop conditions of verifiers. The limit of tool calls, which it does not have, is `tool_limit`."""


def _write(attempts: RunAttempts, out: Path) -> list[Written]:
    """Write `traces.jsonl` in a folder for each stored file: verifiers' runs are folders."""
    return write_attempts(
        attempts, out, "{}/traces.jsonl", lambda attempt, file: row(attempt, attempts.name, file.created)
    )


def row(attempt: Attempt, environment: str, created: float) -> dict[str, Any]:
    """Convert a trajectory to an episode. `environment`: name of the run. `created`: seconds since the epoch."""
    one = attempt.trajectory
    task = _task(attempt)
    errors = [] if one.failure is None else [{"type": one.failure.label, "message": one.failure.message}]
    done = one.failure is None
    graph = _Graph(attempt, created)
    info: dict[str, Any] = {
        **attempt.gold(),
        "rewright": {**attempt.whole(tokens=one.prompt_ids is None), **graph.left},
    }
    info.pop("gold_answers", None)  # in the data of the task
    trace = {
        "version": 1,
        "id": one.id,
        "verifiers": {"version": VERSION},
        "task": task,
        "agent": {"config": {"model": one.provenance.model, "sampling": one.provenance.sampling}, "name": "agent"},
        "tools": graph.tools,
        "nodes": graph.nodes,
        "calls": graph.calls,
        "rewards": {} if attempt.reward is None else {"outcome": {"score": attempt.reward, "weight": 1.0}},
        "metrics": {} if attempt.verdict is None else attempt.verdict.metrics,
        "info": info,
        "is_completed": done,
        "ok": done,
        "stop_condition": _STOPS.get(one.stop_reason, one.stop_reason),
        "is_timeout": one.stop_reason == "time_limit",
        "errors": errors,
        "timing": {"start": created, "agent": {"start": created, "end": created + one.seconds}},
    }
    return {
        "id": one.id,
        "env": {"id": environment},
        "task": task,
        "group": {"id": one.task_id},
        "ok": done,
        "errors": [],
        "traces": [trace],
    }


def _task(attempt: Attempt) -> dict[str, Any]:
    prompt = attempt.prompt
    system = [text_of(message.get("content")) for message in prompt if message["role"] == "system"]
    asked = [text_of(message.get("content")) for message in prompt if message["role"] == "user"]
    data: dict[str, Any] = {"id": attempt.trajectory.task_id, "prompt": "\n\n".join(asked)}
    if system:
        data["system_prompt"] = "\n\n".join(system)
    gold = attempt.gold()
    if "gold_answers" in gold:
        data["answers"] = gold["gold_answers"]
    content = json.dumps(data, sort_keys=True, ensure_ascii=True)
    return {"type": "Task", "data": data, "hash": hashlib.sha256(content.encode()).hexdigest()}


class _Graph:
    """The nodes of a trace, its model calls, and `left`: tokens that no message follows."""

    def __init__(self, attempt: Attempt, created: float) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []
        self.left: dict[str, Any] = {}
        self.tools = [{"type": "function", **_tool(function)} for function in attempt.functions]
        self._created = created
        for number, given in enumerate(attempt.prompt if attempt.trajectory.turns else ()):
            self._add(_prompt_message(given, number, self.nodes))
        waiting = list(attempt.trajectory.prompt_ids or ())
        if self.nodes:
            waiting = self._give(waiting, 0)
        for spoken, counts in zip(attempt.turns, attempt.tokens_per_turn(), strict=True):
            turn = spoken.turn
            message: dict[str, Any] = {"role": "assistant", "content": spoken.text}
            message |= {"reasoning_content": spoken.thought} if spoken.thought else {}
            message |= {"tool_calls": [_call(call) for call in spoken.calls]} if spoken.calls else {}
            node = self._add(message)
            node["sampled"] = True
            if attempt.trajectory.prompt_ids is not None:
                generated = list(turn.token_ids or ())
                node["token_ids"] = [*waiting, *generated]
                node["mask"] = [False] * len(waiting) + [True] * len(generated)
                node["logprobs"] = list(turn.log_probs or ())
            self._called(attempt, spoken.finish_reason, counts)
            first = len(self.nodes)
            for call in spoken.calls:
                if call.result is not None:
                    self._add(_result(call))
            for after in spoken.follow_up:
                self._add(_prompt_message(after, len(self.nodes), self.nodes))
            waiting = self._give([] if attempt.trajectory.prompt_ids is None else list(turn.suffix_ids), first)
        if waiting:
            self.left = {"suffix_token_ids": waiting}
        if self.nodes and self.tools:
            self.nodes[0]["tools"] = self.tools

    def _add(self, message: dict[str, Any]) -> dict[str, Any]:
        parent = {"parent": len(self.nodes) - 1} if self.nodes else {}
        node = {**parent, "message": message, "sampled": False, "timestamp": self._created}
        self.nodes.append(node)
        return node

    def _give(self, tokens: list[int], first: int) -> list[int]:
        """Give tokens to the last message if that is number `first` or later, and return those that are left."""
        if len(self.nodes) <= first or not tokens:
            return tokens
        self.nodes[-1] |= {"token_ids": tokens, "mask": [False] * len(tokens)}
        return []

    def _called(self, attempt: Attempt, finish_reason: str, counts: tuple[int | None, int | None]) -> None:
        call: dict[str, Any] = {
            "node": len(self.nodes) - 1,
            "model": attempt.trajectory.provenance.model,
            "finish_reason": finish_reason,
        }
        if counts[0] is not None and counts[1] is not None:
            call["usage"] = {"prompt_tokens": counts[0], "completion_tokens": counts[1]}
        self.calls.append(call)


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    found = {"name": str(function.get("name")), "description": str(function.get("description") or "")}
    return {**found, "parameters": function.get("parameters") or {}}


def _prompt_message(message: dict[str, Any], number: int, before: list[dict[str, Any]]) -> dict[str, Any]:
    role, text = message["role"], text_of(message.get("content"))
    if role == "assistant":
        calls = [
            {
                "id": str(call.get("id") or f"prompt_{number}_{index}"),
                "name": str(call["function"]["name"]),
                "arguments": msgspec.json.encode(call["function"]["arguments"]).decode(),
            }
            for index, call in enumerate(message.get("tool_calls") or ())
        ]
        return {"role": role, "content": text} | ({"tool_calls": calls} if calls else {})
    if role == "tool":
        answered = sum(1 for node in before if node["message"]["role"] == "tool")
        asked = [call["id"] for node in before for call in node["message"].get("tool_calls") or ()]
        identity = message.get("tool_call_id") or (asked[answered] if answered < len(asked) else f"prompt_{number}")
        return {"role": role, "tool_call_id": str(identity), "content": text, "name": message.get("name")}
    return {"role": "system" if role in ("system", "developer") else "user", "content": text}


def _call(spoken: SpokenCall) -> dict[str, Any]:
    call = spoken.call
    if call.error is None:
        arguments = msgspec.json.encode(call.arguments).decode()
        return {"id": spoken.id, "type": "function", "name": call.name, "arguments": arguments}
    return {
        "id": spoken.id,
        "type": "function",
        "name": "" if _is_object(call.raw) else call.name,
        "arguments": call.raw,
    }


def _is_object(text: str) -> bool:
    """Whether a text would be read as the arguments of a well-formed call."""
    try:
        return not text.strip() or isinstance(STRICT.decode(text), dict)
    except (ValueError, RecursionError):
        return False


def _result(spoken: SpokenCall) -> dict[str, Any]:
    result = spoken.result
    assert result is not None
    message = {"role": "tool", "tool_call_id": spoken.id, "content": result.content, "name": spoken.call.name}
    # verifiers ignores this key. Readers of chats take an error for the text of a result that has none.
    return message | ({"error": result.error} if result.error is not None and result.content else {})


EXPORTER: Final = AttemptExporter(_write)
