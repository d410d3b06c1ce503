"""Write tasks.jsonl: what is asked, with which tools, and what is right.

    python examples/own_tools/make_tasks.py

A task is one JSON object (`rewright.core.records.Task`). `target` names a function of company.py; `gold.calls` are the
calls of a right solution, from which turns get their reward, and `gold.answers` what the judge compares with.
"""

import inspect
import json
from pathlib import Path

import company

TOOLS = (company.get_manager, company.get_age, company.get_rent)
SYSTEM = "Answer with the tools. Think before each call. Put the final answer in <answer></answer>."


def tool(function) -> dict:
    """A tool of a task: its schema in OpenAI's form, and where the function is."""
    parameters = {"type": "object", "properties": {"person": {"type": "string"}}, "required": ["person"]}
    described = {"name": function.__name__, "description": inspect.getdoc(function), "parameters": parameters}
    return {"schema": {"type": "function", "function": described}, "target": f"company:{function.__name__}"}


def task(person: str, *attributes: str) -> dict:
    """A question of as many calls as attributes: ("manager", "age") asks for the age of the manager of `person`."""
    calls, value = [], person
    for attribute in attributes:
        calls.append({"name": f"get_{attribute}", "arguments": {"person": value}})
        value = company.PEOPLE[value][attribute]
    asked = " of ".join(f"the {attribute}" for attribute in reversed(attributes))
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"What is {asked} of {person}?"},
    ]
    return {
        "id": f"{person}-{'-'.join(attributes)}".lower(),
        "messages": messages,
        "tools": [tool(function) for function in TOOLS],
        "gold": {"calls": calls, "answers": [str(value)]},
        "judge": "exact",
    }


def tasks() -> list[dict]:
    """Four questions about every person, of one to three calls."""
    asked = [("age",), ("manager", "age"), ("manager", "rent"), ("manager", "manager", "rent")]
    return [task(person, *attributes) for person in company.PEOPLE for attributes in asked]


if __name__ == "__main__":
    path = Path(__file__).with_name("tasks.jsonl")
    path.write_text("".join(json.dumps(one) + "\n" for one in tasks()), encoding="utf-8")
    print(f"{path}: {len(tasks())} tasks")
