"""An environment of verifiers for one process: tasks, schemas of its tools, their calls, and the rubric's scores.

Runs only in child processes, since it imports verifiers and the environment: tools in the worker of a trajectory
(`rewright.benchmarks.verifiers.world`), tasks and scores in a worker of `rewright.workers.pool`. Written for 0.4.

Tool servers are not started as processes: their methods are called here, on instances of one trajectory, which share
one state. What needs a container, another agent loop or a simulated user is refused.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import verifiers.v1 as vf
from mcp.server.mcpserver import MCPServer
from pydantic import ValidationError
from verifiers.v1.utils.decorators import discover_decorated
from verifiers.v1.utils.loaders import (
    default_harness_id,
    environment_class,
    load_taskset,
    taskset_class,
    taskset_config_type,
)

__all__ = ["Session", "UnsupportedError", "load", "score"]

DEFAULT_COUNT: Final = 100
"""Number of tasks of an endless environment without a limit."""


class UnsupportedError(ValueError):
    """The environment cannot be used; the message says why."""


@lru_cache(maxsize=8)
def _taskset(name: str, arguments: str) -> vf.Taskset[Any, Any]:
    """Return the environment's task set. Raises UnsupportedError."""
    try:
        config = taskset_config_type(name).model_validate({"id": name, **json.loads(arguments)})
        taskset: vf.Taskset[Any, Any] = load_taskset(config)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"])) or "arguments"
        raise UnsupportedError(f"its argument {where}: {first['msg']}") from None
    except (ImportError, AttributeError, TypeError, ValueError) as problem:
        raise UnsupportedError(_one_line(problem)) from None
    if environment_class(name) is not vf.SingleAgentEnv:
        raise UnsupportedError(f"it plays by its own rules ({environment_class(name).__name__}), not with one agent")
    if default_harness_id(name) == name:
        raise UnsupportedError("it brings an agent loop of its own (a harness)")
    kind = taskset_class(name).task_type()
    if kind.NEEDS_CONTAINER:
        raise UnsupportedError("its tasks need a container")
    prepares = [hook for hook in ("setup", "finalize") if getattr(kind, hook) is not getattr(vf.Task, hook)]
    if prepares:
        raise UnsupportedError(f"its tasks prepare a runtime ({' and '.join(prepares)} of {kind.__name__})")
    return taskset


def load(name: str, arguments: Mapping[str, Any], limit: int | None) -> list[dict[str, Any]]:
    """Return the tasks of an environment as plain data. Raises UnsupportedError."""
    taskset = _taskset(name, json.dumps(arguments, sort_keys=True))
    count = limit if limit is not None or taskset.bounded else DEFAULT_COUNT
    rows = []
    for task in itertools.islice(taskset, count):
        runtime = [hook.__name__ for hook in task.hooks("reward") if _needs_runtime(hook)]
        if runtime:
            raise UnsupportedError(f"its reward {runtime[0]} reads a runtime")
        data = task.data.model_dump(mode="json", exclude_defaults=True)
        messages = _messages(task.data)
        answer = getattr(task.data, "answer", None)
        rows.append(
            {
                "data": data,
                "messages": messages,
                "tools": _schemas(name, json.dumps(arguments, sort_keys=True), task),
                "answer": str(answer) if isinstance(answer, (str, int, float)) and str(answer).strip() else None,
            }
        )
    if not rows:
        raise UnsupportedError("it has no task")
    return rows


def _needs_runtime(hook: Any) -> bool:
    parameter = inspect.signature(hook).parameters.get("runtime")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def _messages(data: vf.TaskData) -> list[dict[str, Any]]:
    prompt = data.prompt
    if prompt is None:
        raise UnsupportedError("it has tasks without a prompt")
    spoken: list[dict[str, Any]] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else []
    for message in prompt if not isinstance(prompt, str) else ():
        dumped = message.model_dump(mode="json", exclude_none=True)
        content = dumped.get("content", "")
        if not isinstance(content, str):
            if any(part.get("type") != "text" for part in content):
                raise UnsupportedError("its prompts have images")
            dumped["content"] = "\n".join(part["text"] for part in content)
        if dumped.get("tool_calls"):
            raise UnsupportedError("its prompts have tool calls")
        spoken.append(dumped)
    if data.system_prompt is not None:
        spoken.insert(0, {"role": "system", "content": data.system_prompt})
    return spoken


def _toolsets(taskset: vf.Taskset[Any, Any], task: vf.Task[Any, Any, Any]) -> list[tuple[vf.Toolset[Any, Any], bool]]:
    """Return new tool servers, and whether each belongs to the task (and not to the whole set)."""
    own = [(toolset, True) for toolset in type(task).toolsets(task.config)]
    return [*own, *((toolset, False) for toolset in type(taskset).toolsets(taskset.config))]


def _server(toolset: vf.Toolset[Any, Any]) -> tuple[MCPServer, str]:
    """Return a server with the toolset's tools under their advertised names; its methods keep their state."""
    if getattr(toolset.config, "url", None):
        raise UnsupportedError(f"its tools {type(toolset).__name__} are served at an address")
    prefix = f"{toolset.server_name}_" if toolset.server_name else ""
    server = MCPServer(type(toolset).__name__)
    for function in discover_decorated(toolset, "tool"):
        name = getattr(function, "tool_name", None) or function.__name__
        server.add_tool(function, name=prefix + name, description=(function.__doc__ or "").strip() or None)
    return server, prefix


_known_schemas: dict[tuple[str, str, type], list[dict[str, Any]]] = {}


def _schemas(name: str, arguments: str, task: vf.Task[Any, Any, Any]) -> list[dict[str, Any]]:
    """Return the OpenAI function schemas of the tools, which are those of the class of the tasks."""
    key = name, arguments, type(task)
    if key not in _known_schemas:
        schemas = []
        for toolset, _ in _toolsets(_taskset(name, arguments), task):
            for tool in asyncio.run(_server(toolset)[0].list_tools()):
                function = {"name": tool.name, "description": tool.description or "", "parameters": tool.input_schema}
                schemas.append({"type": "function", "function": function})
        _known_schemas[key] = schemas
    return _known_schemas[key]


class Session:
    """The tools of one trajectory of a task, with the state that they share. Raises UnsupportedError."""

    def __init__(self, name: str, arguments: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        taskset = _taskset(name, json.dumps(arguments, sort_keys=True))
        kind = type(taskset).task_type()
        self.task = kind(kind.data_type().model_validate(data), taskset.config.task)
        self._loop = asyncio.new_event_loop()
        self._servers: dict[str, MCPServer] = {}
        states: dict[type, Any] = {}
        for toolset, own in _toolsets(taskset, self.task):
            state = states.setdefault(toolset._state_cls, toolset._inert_state)
            toolset._inert_state = state
            self._loop.run_until_complete(toolset.setup())
            if own:
                self._loop.run_until_complete(toolset.setup_task(self.task.data))
            server, _ = _server(toolset)
            for tool in self._loop.run_until_complete(server.list_tools()):
                self._servers[tool.name] = server
        self.states = states

    def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """Run one call and return its result as text. Raises the tool's exception, with MCP's words."""
        result = self._loop.run_until_complete(self._servers[tool].call_tool(tool, arguments))
        content = getattr(result, "content", None)
        if content is None:
            raise RuntimeError(f"{tool} asks for input, which nobody gives here")
        texts = [getattr(block, "text", None) or f"[{block.type}]" for block in content]
        if getattr(result, "is_error", False):
            raise RuntimeError("\n".join(texts))
        return "\n".join(texts)

    def score(self, turns: Sequence[Mapping[str, Any]], messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the reward, its parts and the metrics of a conversation. Raises the rubric's exception."""
        trace = _trace(self.task, turns, messages, self.states)
        self._loop.run_until_complete(self.task.score(trace))
        missing = [name for name, value in trace.rewards.items() if value is None]
        if missing:
            raise RuntimeError(f"the reward {missing[0]} was not computed")
        return {
            "reward": trace.reward,
            "rewards": {name: value.score for name, value in trace.rewards.items() if value is not None},
            "metrics": {name: value for name, value in trace.metrics.items() if value is not None},
        }


def score(
    name: str,
    arguments: Mapping[str, Any],
    data: Mapping[str, Any],
    turns: Sequence[Mapping[str, Any]],
    messages: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Score a trajectory. Its calls are made again first, on new tools, so that a rubric finds their state."""
    session = Session(name, arguments, data)
    if any(kind is not vf.State for kind in session.states):
        for turn in turns:
            for call in turn["calls"][: len(turn["results"])]:
                if call["tool"] in session._servers and call["ok"]:
                    try:
                        session.call(call["tool"], call["arguments"])
                    except Exception:  # it failed in the trajectory, too
                        continue
    return session.score(turns, messages)


def _trace(
    task: vf.Task[Any, Any, Any],
    turns: Sequence[Mapping[str, Any]],
    messages: Sequence[Mapping[str, Any]],
    states: Mapping[type, Any],
) -> Any:
    """Return the trace of a trajectory: prompt, turns with their calls, results."""
    from verifiers.v1.state import state_cls

    spoken: list[tuple[Any, bool]] = []
    for message in messages:
        kind = vf.SystemMessage if message["role"] == "system" else vf.UserMessage
        if message["role"] == "assistant":
            spoken.append((vf.AssistantMessage(content=message["content"]), False))
        else:
            spoken.append((kind(content=message["content"]), False))
    for number, turn in enumerate(turns):
        calls = [
            vf.ToolCall(id=f"call-{number}-{index}", name=call["tool"], arguments=call["written"])
            for index, call in enumerate(turn["calls"])
        ]
        spoken.append((vf.AssistantMessage(content=turn["text"], tool_calls=calls or None), True))
        for call, result in zip(calls, turn["results"], strict=False):
            spoken.append((vf.ToolMessage(tool_call_id=call.id, content=result, name=call.name), False))
    nodes = [
        vf.MessageNode(parent=position - 1 if position else None, message=message, sampled=sampled)
        for position, (message, sampled) in enumerate(spoken)
    ]
    state = state_cls(type(task))
    return vf.Trace[Any, Any, Any](
        task=vf.TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash),
        agent=vf.AgentInfo(config=vf.AgentConfig()),
        nodes=nodes,
        state=states.get(state) or state(),
        is_completed=True,
        ok=True,
    )


def _one_line(problem: BaseException) -> str:
    return " ".join(str(problem).split()) or type(problem).__name__
