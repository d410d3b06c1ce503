"""BFCL's stateful APIs (package bfcl-eval) for one trajectory, and its official multi-turn checker.

Runs only in child processes: the tools of each trajectory in a separate worker (`call` is the target of the tasks'
tools), the checker in the judge's worker (`rewright.workers.pool`). The package keeps instances in module globals by
model name and evaluates calls as Python text. Here instances belong to one trajectory, and a call consists of the name
of a documented method and JSON arguments. No text is evaluated.
"""

from __future__ import annotations

import ast
import copy
import importlib
import json
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any, Final

import bfcl_eval
from bfcl_eval.constants.executable_backend_config import CLASS_FILE_PATH_MAPPING, STATELESS_CLASSES

from rewright.benchmarks.bfcl.methods import run_method

__all__ = [
    "APIS",
    "CATEGORIES",
    "Worlds",
    "call",
    "changes_state",
    "check",
    "documented",
    "gold",
    "official_entry",
    "read_lines",
]

CATEGORIES: Final = ("base", "miss_func", "miss_param", "long_context")
APIS: Final[dict[str, str]] = {
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MessageAPI": "message_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "TwitterAPI": "posting_api",
    "VehicleControlAPI": "vehicle_control",
}
"""API classes of the multi-turn categories, and the files that document their methods."""

_DATA: Final = Path(str(bfcl_eval.__file__)).parent / "data"
# Imported at module level, so that workers forked for a trajectory don't import them again.
_CLASSES: Final[dict[str, type[Any]]] = {
    name: getattr(importlib.import_module(CLASS_FILE_PATH_MAPPING[name]), name) for name in APIS
}


def read_lines(name: str) -> list[dict[str, Any]]:
    """Return the records of the package's data file `name`, relative to its data folder."""
    return [json.loads(line) for line in (_DATA / name).read_text(encoding="utf-8").splitlines()]


@lru_cache(maxsize=len(APIS))
def documented(api: str) -> dict[str, dict[str, Any]]:
    """Return the documentation of a class's methods by name: name, description, parameters, response."""
    return {document["name"]: document for document in read_lines(f"multi_turn_func_doc/{APIS[api]}.json")}


@lru_cache(maxsize=len(CATEGORIES))
def _lines(category: str) -> list[bytes]:
    return (_DATA / f"BFCL_v4_multi_turn_{category}.json").read_bytes().splitlines()


@lru_cache(maxsize=64)
def official_entry(identity: str) -> dict[str, Any]:
    """Return one test entry by id (`multi_turn_<category>_<number>`). Decodes only its line, to reduce latency."""
    category, _, number = identity.removeprefix("multi_turn_").rpartition("_")
    if category in CATEGORIES and number.isdigit() and int(number) < len(_lines(category)):
        entry: dict[str, Any] = json.loads(_lines(category)[int(number)])
        if entry["id"] == identity:
            return entry
    raise ValueError(f"BFCL has no multi-turn entry {identity!r}")


@lru_cache(maxsize=len(CATEGORIES))
def _gold_lines(category: str) -> dict[str, list[list[str]]]:
    lines = read_lines(f"possible_answer/BFCL_v4_multi_turn_{category}.json")
    return {line["id"]: line["ground_truth"] for line in lines}


def gold(identity: str) -> list[list[tuple[str, dict[str, Any]]]]:
    """Return the gold calls of an entry for every user message, as names and keyword arguments."""
    entry = official_entry(identity)
    documents = {name: document for api in entry["involved_classes"] for name, document in documented(api).items()}
    category = identity.removeprefix("multi_turn_").rpartition("_")[0]
    return [[_read(text, documents) for text in calls] for calls in _gold_lines(category)[identity]]


def _read(text: str, documents: dict[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Parse a gold call in Python text such as `cd(folder='a')` into name and arguments, without evaluating it."""
    node = ast.parse(text, mode="eval").body
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError(f"gold call {text!r}: expected name(argument=value, …)")
    names = list(documents[node.func.id]["parameters"]["properties"])
    arguments = {name: ast.literal_eval(value) for name, value in zip(names, node.args, strict=False)}
    return node.func.id, arguments | {str(part.arg): ast.literal_eval(part.value) for part in node.keywords}


class Worlds:
    """API instances of one trajectory of an entry."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.instances: dict[str, Any] = {}
        self._owners: dict[str, Any] = {}
        for api in entry["involved_classes"]:
            instance = self.instances[api] = _CLASSES[api]()
            if api not in STATELESS_CLASSES:
                settings = copy.deepcopy(entry["initial_config"].get(api, {}))
                instance._load_scenario(settings, long_context="long_context" in entry["id"])
            self._owners |= dict.fromkeys(documented(api), instance)

    def run(self, name: str, arguments: dict[str, Any]) -> str:
        """Run a call and return its result as text. Raises NameError for an unknown name, or the method's exception."""
        return run_method(self._owners, name, arguments)

    def result(self, name: str, arguments: dict[str, Any]) -> str:
        """Like `run`, but return exceptions as the package's error text."""
        try:
            return self.run(name, arguments)
        except Exception as problem:
            return f"Error during execution: {problem}"


_worlds: dict[str, Worlds] = {}
"""Worlds of this worker process, by entry id. A worker serves one trajectory."""


def call(data: dict[str, str], /, **arguments: Any) -> str:
    """Target of the tools: run the method `data["method"]` in this process's world for the entry `data["entry"]`."""
    identity = data["entry"]
    if identity not in _worlds:
        _worlds[identity] = Worlds(official_entry(identity))
    return _worlds[identity].run(data["method"], arguments)


def changes_state(identity: str, calls: Sequence[tuple[str, dict[str, Any]]]) -> bool:
    """Whether the instances are others after these calls: all attributes, as the working directory and logins."""
    if not calls:
        return False
    entry = official_entry(identity)
    worlds = Worlds(entry)
    before = _state(worlds)
    for call in calls:
        worlds.result(*call)
    return _state(worlds) != before


def _state(worlds: Worlds) -> dict[str, Any]:
    return {name: _plain(instance, ()) for name, instance in worlds.instances.items()}


def _plain(value: Any, above: tuple[int, ...]) -> Any:
    """Attributes of attributes, down to plain values. An object above is its distance, as the parent of a directory."""
    if isinstance(value, dict):
        return {key: _plain(item, above) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, above) for item in value]
    if isinstance(value, random.Random):
        return value.getstate()
    if not hasattr(value, "__dict__"):
        return value
    if id(value) in above:
        return f"object {len(above) - above.index(id(value))} levels above"
    return {name: _plain(item, (*above, id(value))) for name, item in vars(value).items()}


Step = Sequence[tuple[str, dict[str, Any]]]
"""Calls of one generation, as (name, arguments)."""


def check(identity: str, exchanges: Sequence[Sequence[Step]]) -> dict[str, Any]:
    """Run the package's `multi_turn_checker`. Returns `valid`, and `error_type` and `error_message` on failure.

    `exchanges` holds the model's steps for every user message; steps without calls are ignored. The checker's original
    code runs, with its function for executing calls replaced by one that evaluates no text.
    """
    gold_steps = gold(identity)
    if len(exchanges) != len(gold_steps):
        message = f"the model reached {len(exchanges)} of {len(gold_steps)} user messages"
        return {"valid": False, "error_type": "multi_turn:force_terminated", "error_message": message}
    entry = official_entry(identity)
    worlds: dict[str, Worlds] = {}

    def execute(func_call_list: Step, *, model_name: str, **_: Any) -> tuple[list[str], dict[str, Any]]:
        if model_name not in worlds:
            worlds[model_name] = Worlds(entry)
        world = worlds[model_name]
        return [world.result(*call) for call in func_call_list], world.instances

    steps = [[list(step) for step in exchange if step] for exchange in exchanges]
    result: dict[str, Any] = _official(execute)(steps, gold_steps, entry, "", "model")
    return result


def _official(execute: Callable[..., Any]) -> Callable[..., Any]:
    """Return the package's checker with `execute_multi_turn_func_call` replaced by `execute`."""
    from bfcl_eval.eval_checker.multi_turn_eval import multi_turn_checker as module

    names = {**vars(module), "execute_multi_turn_func_call": execute}
    return FunctionType(module.multi_turn_checker.__code__, names)
