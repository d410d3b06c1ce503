"""JSON schemas of tools: is a schema valid, do arguments fit it? By the package jsonschema (draft 2020-12)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from rewright.core.records import Task
from rewright.core.trust import target_problem

__all__ = ["argument_problems", "disagreements", "record_problems", "schema_problems", "target_problems"]


def _where(path: Any) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def schema_problems(schema: dict[str, Any]) -> list[str]:
    """What is wrong with an OpenAI function schema; [] for a valid one."""
    problems = []
    if schema.get("type") != "function":
        problems.append(f"'type' is {schema.get('type')!r}, expected 'function'")
    function = schema.get("function")
    if not isinstance(function, dict):
        return [*problems, "'function' is missing, expected an object with name, description and parameters"]
    if not isinstance(function.get("name"), str) or not function["name"]:
        problems.append("'function.name' is missing, expected a text")
    if not isinstance(function.get("description", ""), str):
        problems.append("'function.description' is not a text")
    parameters = function.get("parameters")
    if parameters is None:
        return problems
    if not isinstance(parameters, dict):
        return [*problems, "'function.parameters' is not an object"]
    return [*problems, *_parameter_problems(json.dumps(parameters, sort_keys=True, default=str))]


@lru_cache(maxsize=16384)
def _parameter_problems(text: str) -> tuple[str, ...]:
    from jsonschema import Draft202012Validator, SchemaError

    parameters = json.loads(text)
    try:
        Draft202012Validator.check_schema(parameters)
    except SchemaError as problem:
        return (f"'function.parameters': {problem.message[:200]} at '{_where(problem.absolute_path) or 'top'}'",)
    except RecursionError:
        return ("'function.parameters' is nested too deeply",)
    problems = []
    if parameters.get("type", "object") != "object":
        problems.append(f"'function.parameters.type' is {parameters['type']!r}, expected 'object'")
    properties = parameters.get("properties", {})
    problems.extend(
        f"'function.parameters.required' names {name!r}, which is no property"
        for name in parameters.get("required", ())
        if name not in properties
    )
    return tuple(problems)


@lru_cache(maxsize=1024)
def _validator(text: str) -> Any:
    from jsonschema import Draft202012Validator
    from referencing import Registry

    # An empty registry: a reference to another document is an error, never a download.
    return Draft202012Validator(json.loads(text), registry=Registry())


def argument_problems(schema: dict[str, Any], arguments: dict[str, Any]) -> list[str]:
    """How `arguments` disagree with a function schema; [] where they fit, or where the schema itself is not valid.

    An argument that the schema does not name is a disagreement, unless `additionalProperties` allows it.
    """
    if schema_problems(schema):
        return []
    parameters = schema["function"].get("parameters") or {}
    problems = _checked(json.dumps(parameters, sort_keys=True, default=str), arguments)
    properties = parameters.get("properties", {})
    if "additionalProperties" not in parameters and "patternProperties" not in parameters:
        known = ", ".join(properties) or "none"
        problems.extend(
            f"unknown argument {name!r}; the schema has {known}" for name in arguments if name not in properties
        )
    return problems


def disagreements(parameters: str, arguments: dict[str, Any]) -> list[str]:
    """How `arguments` disagree with the JSON text of a schema. Takes as long as the schema wants it to."""
    problems = []
    try:
        for problem in _validator(parameters).iter_errors(arguments):
            where = _where(problem.absolute_path)
            problems.append((f"argument '{where}': " if where else "") + problem.message[:200])
    except Exception as problem:
        # A reference that leads nowhere, a bad pattern: the schema is at fault, whatever the library calls it.
        problems.append(f"could not be checked against the schema: {str(problem)[:200]}")
    return problems


_COSTLY = ('"pattern', '"$ref"', '"$dynamicRef"', '"uniqueItems"', '"unevaluated')


def _checked(parameters: str, arguments: dict[str, Any]) -> list[str]:
    """`disagreements`; in a process with a time limit where the schema could take longer than it is long."""
    if not any(word in parameters for word in _COSTLY):
        return disagreements(parameters, arguments)
    from rewright.workers import pool

    try:
        reply = pool.ask("rewright.tasks.schema_worker", {"parameters": parameters, "arguments": arguments})
    except pool.RequestError as problem:
        return [f"could not be checked against the schema: comparing {problem}"]
    problems: list[str] = reply["problems"]
    return problems


def target_problems(task: Task) -> Iterator[tuple[str, str]]:
    """(tool, message) for every target of a task that no file may name."""
    for tool in task.all_tools:
        if tool.target is not None and (problem := target_problem(tool.name, tool.target)) is not None:
            yield tool.name, problem


def record_problems(task: Task) -> Iterator[tuple[str | None, str]]:
    """(tool, message) for every disagreement inside one record between its gold and its tools.

    A task without tools is given them by the recipe, so its gold is not held against them.
    """
    schemas: dict[str, dict[str, Any]] = {}
    for tool in task.all_tools:
        if tool.name in schemas:
            yield tool.name, f"the tool {tool.name!r} is there twice"
        schemas[tool.name] = tool.schema
    if not schemas:
        return
    available = ", ".join(schemas)
    for number, call in enumerate(task.gold.calls or ()):
        if call.name not in schemas:
            yield call.name, f"gold call {number} is to the unknown tool {call.name!r}; the task has {available}"
            continue
        for message in argument_problems(schemas[call.name], call.arguments):
            yield call.name, f"gold call {number} to {call.name!r}: {message}"
    for name in task.gold.outputs or ():
        if name not in schemas:
            yield name, f"gold outputs are expected of the unknown tool {name!r}; the task has {available}"
