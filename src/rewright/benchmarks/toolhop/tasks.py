"""ToolHop: multi-hop questions with local Python tools (`bytedance-research/ToolHop`).

Columns: id, question, answer, sub_task {sub-question: answer}, tools {sub-question: {name, description, parameters}},
functions [Python source of each tool], domain, answer_type. Sub-answers become the expected outputs of their tools.
"""

from __future__ import annotations

import ast
from typing import Any

from rewright.core.records import Gold, Task, ToolSpec
from rewright.judging.fitting import default_judge
from rewright.tasks.formats import RowFormat
from rewright.tasks.rows import Row, function_schema

__all__ = ["FORMAT", "to_task"]


def _sources(row: Row) -> dict[str, str]:
    """Return sources by the name of the function that they define (the last one, if there are helpers)."""
    functions: Any = row.get("functions")
    if isinstance(functions, str):
        functions = row.decoded("functions", list)
    if isinstance(functions, dict):
        return {str(name): str(source) for name, source in functions.items()}
    sources: dict[str, str] = {}
    for number, source in enumerate(functions if isinstance(functions, list) else []):
        if not isinstance(source, str):
            raise row.fail(f"'functions'[{number}] is not Python source")
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
            raise row.fail(f"'functions'[{number}] is not valid Python: {problem}") from None
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                sources[node.name] = source
    return sources


def to_task(row: Row) -> Task:
    """Convert one record to a task. The judge is `exact` or `qa`, depending on the answer."""
    sources = _sources(row)
    answers = row.decoded("sub_task", dict) if row.get("sub_task") is not None else {}
    tools: dict[str, ToolSpec] = {}
    outputs: dict[str, list[str]] = {}
    for question, value in row.decoded("tools", dict).items():
        schema = function_schema(row, f"'tools'[{question!r}]", value)
        name = schema["function"]["name"]
        if name not in sources:
            raise row.fail(f"'functions' defines no {name!r}, which 'tools' names")
        tools[name] = ToolSpec(schema, source=sources[name])
        if question in answers:
            outputs.setdefault(name, []).append(str(answers[question]))
    answer = row.text("answer")
    return Task(
        id=f"toolhop-{row.optional_text('id') or row.index}",
        messages=({"role": "user", "content": row.text("question")},),
        tools=tuple(tools.values()),
        gold=Gold(answers=(answer,), outputs=outputs or None),
        source="toolhop",
        judge=default_judge(answer),
        metadata={key: row.get(key) for key in ("domain", "answer_type") if row.get(key) is not None},
    )


FORMAT = RowFormat(
    to_task, columns=("question", "tools", "functions"), hub=("bytedance-research/ToolHop", None, "train")
)
