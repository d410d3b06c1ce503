"""ATIF, the Agent Trajectory Interchange Format of Harbor (versions 1.0 to 1.8): one trajectory per row or file.

A step of the agent is a turn; results in its `observation` belong to the calls that they name. Steps copied from an
earlier trajectory, and steps of the agent without a model call, are no turns: behind the first turn they are read as
messages of the user. Trajectories of subagents are not read. Token ids are kept where every turn has them.

A file of our own exporter has in `extra` what ATIF has no field for, and gives back the same trajectory, unless another
program has edited the fields of ATIF: then these are read as in any other file (`rewright.importers.own_extras`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rewright.core.records import Message
from rewright.importers.conversation import (
    Conversation,
    LogFormat,
    TurnTokens,
    kind_of,
    log_probs,
    parts_of,
    said,
    token_ids,
)
from rewright.importers.own_extras import kept_in
from rewright.tasks.rows import Row

__all__ = ["FORMAT"]

_VERSIONS: Final = tuple(f"ATIF-v1.{minor}" for minor in range(9))


def _read(row: Row) -> Iterator[Conversation]:
    values = row.values
    version = values.get("schema_version")
    if not isinstance(version, str) or not version.startswith(_VERSIONS):
        raise row.fail(f"schema_version is {version!r:.60}: expected one of {', '.join(_VERSIONS)}")
    steps, agent = values.get("steps"), values.get("agent")
    if not isinstance(steps, list) or not all(isinstance(step, Mapping) for step in steps):
        raise row.fail("'steps' is not a list of objects: expected the steps of a trajectory")
    agent = agent if isinstance(agent, Mapping) else {}
    prompt: list[Message] = []
    turns: list[Message] = []
    spoken: list[Mapping[str, Any]] = []
    for number, step in enumerate(steps):
        own = step.get("source") == "agent" and not step.get("is_copied_context") and step.get("llm_call_count") != 0
        if own:
            spoken.append(step)
        messages = _messages(row, number, step)
        if turns and not own:
            turns += [said("user", one["content"]) for one in messages if one["content"] or one["role"] == "user"]
        else:
            (turns if own else prompt).extend(messages)
    extra = values.get("extra")
    extra = extra if isinstance(extra, Mapping) else {}
    metrics = values.get("final_metrics")
    more = metrics.get("extra") if isinstance(metrics, Mapping) else None
    own_id = values.get("trajectory_id") or values.get("session_id")
    group = next((str(extra[key]) for key in ("task_id", "group", "group_id") if extra.get(key) is not None), None)
    found = _tokens(spoken)
    yield Conversation(
        row=row,
        prompt=prompt,
        turns=turns,
        columns={**extra, **(more if isinstance(more, Mapping) else {})},
        id=str(own_id) if own_id else None,
        group=group,
        tools=agent.get("tool_definitions"),
        model=str(agent.get("model_name") or ""),
        prompt_ids=found[0] if found else None,
        tokens=found[1] if found else None,
        kept=kept_in(extra.get("rewright"), *_own_tokens(spoken)),
    )


def _messages(row: Row, number: int, step: Mapping[str, Any]) -> Iterator[Message]:
    source = step.get("source")
    if source not in ("system", "user", "agent"):
        raise row.fail(f"steps[{number}] has the source {source!r:.60}: expected system, user or agent")
    place = f"steps[{number}]"
    text, _ = parts_of(row, place, step.get("message"), strict=False)
    calls = step.get("tool_calls") or []
    if source == "agent":
        if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
            raise row.fail(f"{place}.tool_calls is {kind_of(calls)}: expected a list of objects")
        read = [
            {"id": call.get("tool_call_id"), "name": call.get("function_name"), "arguments": call.get("arguments")}
            for call in calls
        ]
        yield said("assistant", text, reasoning=step.get("reasoning_content"), tool_calls=read)
    else:
        yield said(str(source), text)
    observation = step.get("observation")
    results = observation.get("results") or [] if isinstance(observation, Mapping) else []
    if not isinstance(results, list) or not all(isinstance(result, Mapping) for result in results):
        raise row.fail(f"{place}.observation.results is {kind_of(results)}: expected a list of objects")
    for result in results:
        content, _ = parts_of(row, place, result.get("content"), strict=False)
        identity = result.get("source_call_id")
        if identity is None and not calls:
            yield said("system" if source == "system" else "user", content)
        else:
            yield said("tool", content, tool_call_id=identity)


def _tokens(steps: Sequence[Mapping[str, Any]]) -> tuple[tuple[int, ...], list[TurnTokens]] | None:
    """Return the token ids of the prompt and of every turn; None unless every prompt continues the one before."""
    prompt_ids: tuple[int, ...] = ()
    before: tuple[int, ...] = ()
    turns: list[TurnTokens] = []
    for step in steps:
        metrics = step.get("metrics")
        metrics = metrics if isinstance(metrics, Mapping) else {}
        prompt, generated = (token_ids(metrics.get(key)) for key in ("prompt_token_ids", "completion_token_ids"))
        if prompt is None or generated is None or prompt[: len(before)] != before:
            return None
        if turns:
            turns[-1] = turns[-1]._replace(suffix_ids=prompt[len(before) :])
        else:
            prompt_ids = prompt
        turns.append(TurnTokens(generated, log_probs(metrics.get("logprobs"), len(generated))))
        before = (*prompt, *generated)
    return (prompt_ids, turns) if turns else None


def _own_tokens(steps: Sequence[Mapping[str, Any]]) -> tuple[tuple[int, ...] | None, list[TurnTokens] | None]:
    """Return the token ids of our own export, some of which may be unknown; None if prompts do not continue."""
    prompt_ids: tuple[int, ...] | None = None
    context: tuple[int, ...] | None = None
    turns: list[TurnTokens] = []
    for number, step in enumerate(steps):
        metrics, extra = (found if isinstance(found := step.get(key), Mapping) else {} for key in ("metrics", "extra"))
        prompt = token_ids(metrics.get("prompt_token_ids"))
        generated = token_ids(metrics.get("completion_token_ids")) or ()
        if number == 0:
            prompt_ids = context = prompt
        elif prompt is not None and prompt != context:
            return None, None
        found = TurnTokens(generated, log_probs(metrics.get("logprobs"), len(generated)))
        turns.append(found._replace(suffix_ids=token_ids(extra.get("suffix_token_ids")) or ()))
        context = None if context is None else (*context, *generated, *turns[-1].suffix_ids)
    return prompt_ids, turns


FORMAT: Final = LogFormat(
    name="atif",
    about="a trajectory with schema_version ATIF-v1.x and steps (ATIF)",
    matches=lambda values: str(values.get("schema_version")).startswith("ATIF") and "steps" in values,
    read=_read,
)
