"""Traces of verifiers 0.4 (`traces.jsonl`): an episode per row, each with the traces of its agents.

A trace is a graph of messages; a path from its root to a leaf is a conversation. Of several paths (compaction,
subagents), the one that ends last is read. Only messages that the model has generated are turns. Token ids and
log-probabilities are kept where every turn has them. Older versions wrote tables of prompt and completion, which are
read as such.

A file of our own exporter has in `info` what verifiers has no field for, and gives back the same trajectory, unless
another program has edited the trace's own fields: then these are read as in any other file
(`rewright.importers.own_extras`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rewright.importers.conversation import Conversation, Kept, LogFormat, TurnTokens, kind_of, log_probs, token_ids
from rewright.importers.openai_chat import FORMAT as CHAT
from rewright.importers.own_extras import kept_in
from rewright.tasks.rows import Row

__all__ = ["FORMAT"]

_ANSWERS: Final = ("answer", "answers", "target", "ground_truth", "expected")


def _read(row: Row) -> Iterator[Conversation]:
    values = row.values
    traces = values.get("traces") if isinstance(values.get("traces"), list) else [values]
    for number, trace in enumerate(traces or ()):
        if not isinstance(trace, Mapping) or not isinstance(trace.get("nodes"), list):
            raise row.fail(f"traces[{number}] is {kind_of(trace)}: expected an object with nodes")
        if trace["nodes"]:
            yield _conversation(row, trace, values)


def _conversation(row: Row, trace: Mapping[str, Any], episode: Mapping[str, Any]) -> Conversation:
    path = _path(row, trace["nodes"])
    messages = CHAT.convert(row, [{**node["message"], "tool_calls": _calls(node["message"])} for node in path])
    first = next((index for index, node in enumerate(path) if node.get("sampled")), len(path))
    task = trace.get("task") or episode.get("task")
    task = task if isinstance(task, Mapping) else {}
    data = task.get("data")
    data = data if isinstance(data, Mapping) else {}
    columns = _columns(trace)
    answer = next((data[key] for key in _ANSWERS if data.get(key) is not None), None)
    info = trace.get("info")
    info = info if isinstance(info, Mapping) else {}
    agent = trace.get("agent")
    config = agent.get("config") if isinstance(agent, Mapping) else None
    calls = [one for one in trace.get("calls") or () if isinstance(one, Mapping)]
    model = (config.get("model") if isinstance(config, Mapping) else None) or (calls[-1].get("model") if calls else "")
    found = _tokens(path, first)
    return Conversation(
        row=row,
        prompt=messages[:first],
        turns=messages[first:],
        columns={**info, **columns, **({} if answer is None else {"answer": answer})},
        id=str(trace["id"]) if trace.get("id") else None,
        group=_task_name(task, data),
        tools=path[0].get("tools") or trace.get("tools") or None,
        model=str(model or ""),
        prompt_ids=found[0] if found else None,
        tokens=found[1] if found else None,
        kept=_kept(info.get("rewright"), path, first),
    )


def _kept(about: Any, path: Sequence[Mapping[str, Any]], first: int) -> Kept | None:
    """Return what our own export has kept, with the tokens behind the last turn."""
    prompt_ids, turns = _tokens(path, first, own=True) or (None, None)
    left = token_ids(about.get("suffix_token_ids")) if isinstance(about, Mapping) else None
    if turns and left:
        turns[-1] = turns[-1]._replace(suffix_ids=(*turns[-1].suffix_ids, *left))
    return kept_in(about, prompt_ids, turns)


def _columns(trace: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics, the scores of the rewards, and their weighted sum as `reward`."""
    metrics, rewards = trace.get("metrics"), trace.get("rewards")
    columns: dict[str, Any] = dict(metrics) if isinstance(metrics, Mapping) else {}
    given = rewards.items() if isinstance(rewards, Mapping) else ()
    total: float | None = None
    for name, reward in given:
        score, weight = (reward.get("score"), reward.get("weight", 1.0)) if isinstance(reward, Mapping) else (None, 1.0)
        columns[name] = score
        if isinstance(score, (int, float)) and isinstance(weight, (int, float)):
            total = (total or 0.0) + score * weight
    return columns if total is None else columns | {"reward": total}


def _task_name(task: Mapping[str, Any], data: Mapping[str, Any]) -> str | None:
    """The label of a task; its id in the data set, or the identity that verifiers gives it."""
    for value in (data.get("id"), data.get("name"), task.get("key"), task.get("hash"), data.get("idx")):
        if value is not None:
            return str(value)[:64]
    return None


def _path(row: Row, nodes: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Return the nodes from the root to the last message that the model has generated."""
    for number, node in enumerate(nodes):
        parent = node.get("parent") if isinstance(node, Mapping) else 0
        if not isinstance(node, Mapping) or not isinstance(node.get("message"), Mapping):
            raise row.fail(f"nodes[{number}] is {kind_of(node)}: expected an object with message")
        if parent is not None and not (isinstance(parent, int) and 0 <= parent < number):
            raise row.fail(f"nodes[{number}].parent is {parent!r}: expected the number of an earlier node")
    last = max((index for index, node in enumerate(nodes) if node.get("sampled")), default=len(nodes) - 1)
    # Results behind the last generated message belong to it; of its children, the first ones are followed.
    path = [last]
    while (after := next((i for i, node in enumerate(nodes) if node.get("parent") == path[-1]), None)) is not None:
        path.append(after)
    while (parent := nodes[path[0]].get("parent")) is not None:
        path.insert(0, parent)
    return [nodes[index] for index in path]


def _calls(message: Mapping[str, Any]) -> Any:
    """Return the calls of a message, with the namespace in the name, and custom tools' input as an argument."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return calls
    read: list[Any] = []
    for call in calls:
        if isinstance(call, Mapping) and isinstance(call.get("name"), str):
            name = f"{call['namespace']}.{call['name']}" if call.get("namespace") else call["name"]
            given = call.get("arguments")
            arguments = {"input": given} if call.get("type") == "custom" else given
            read.append({"id": call.get("id"), "name": name, "arguments": arguments})
        else:
            read.append(call)
    return read


def _tokens(
    path: Sequence[Mapping[str, Any]], first: int, *, own: bool = False
) -> tuple[tuple[int, ...], list[TurnTokens]] | None:
    """Return the token ids of the prompt and of every turn; None unless every generated message has them.

    With `own` (our export, which says how many there were) messages may be without.
    """
    before: list[int] = [token for node in path[:first] for token in token_ids(node.get("token_ids")) or ()]
    prompt_ids: tuple[int, ...] = ()
    turns: list[TurnTokens] = []
    for node in path[first:]:
        ids, mask = token_ids(node.get("token_ids")) or (), node.get("mask")
        mask = mask if isinstance(mask, list) else []
        if not node.get("sampled"):
            before += ids
            continue
        start = next((index for index, own in enumerate(mask) if own), len(mask))
        if len(ids) != len(mask) or not all(mask[start:]) or (start == len(mask) and not own):
            return None
        before += ids[:start]
        if turns:
            turns[-1] = turns[-1]._replace(suffix_ids=tuple(before))
        else:
            prompt_ids = tuple(before)
        before = []
        turns.append(TurnTokens(ids[start:], log_probs(node.get("logprobs"), len(ids) - start)))
    if turns:
        turns[-1] = turns[-1]._replace(suffix_ids=tuple(before))
    return (prompt_ids, turns) if turns else None


FORMAT: Final = LogFormat(
    name="verifiers",
    about="an episode with traces, or a trace with nodes (verifiers' traces.jsonl)",
    matches=lambda values: (
        isinstance(values.get("traces"), list) or (isinstance(values.get("nodes"), list) and "task" in values)
    ),
    read=_read,
)
