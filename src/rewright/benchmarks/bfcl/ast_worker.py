"""Guarded worker (`rewright.workers.pool`): runs BFCL's official `ast_checker` on the calls of one trajectory."""

from __future__ import annotations

import copy
import sys
from functools import lru_cache
from types import ModuleType, SimpleNamespace
from typing import Any

from rewright.benchmarks.bfcl.entries import JAVA, JAVASCRIPT, category_of, entries, possible_answers
from rewright.core.errors import InputError

__all__ = ["answer", "prepare"]

_MODELS = "bfcl_eval.constants.model_config"


class _AnyModel(dict[str, Any]):
    """The package's table of models, in which every model takes the names of functions as they are."""

    def __missing__(self, key: str) -> Any:
        return SimpleNamespace(underscore_to_dot=False)


@lru_cache(maxsize=1)
def _checker() -> Any:
    """Import the checker without the package's table of models, which imports the libraries of all vendors."""
    table = ModuleType(_MODELS)
    table.MODEL_CONFIG_MAPPING = _AnyModel()  # type: ignore[attr-defined]
    sys.modules[_MODELS] = table
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker

    languages = {JAVA: Language.JAVA, JAVASCRIPT: Language.JAVASCRIPT}
    return ast_checker, lambda category: languages.get(category, Language.PYTHON)


def prepare(entry: str, calls: list[tuple[str, dict[str, Any]]], possible: list[Any] | None = None) -> None:
    """Import the checker and read the files of the category, which does not count as time of the comparison."""
    try:
        for category in map(category_of, entry.split("+")):
            possible_answers(category), entries(category)
        _checker()
    except (ValueError, InputError, ImportError):
        pass  # `answer` says what is wrong


def answer(entry: str, calls: list[tuple[str, dict[str, Any]]], possible: list[Any] | None = None) -> dict[str, Any]:
    """Return `outcome` and `reason` of the calls (name in the package, arguments), or `missing` without the package.

    `entry` is one id, or several with "+" between them: a question made out of several entries, whose calls are right
    in any order. `possible` replaces their possible answers.
    """
    rows = [(category_of(one), one) for one in entry.split("+")]
    category = rows[0][0] if len(rows) == 1 else "parallel_multiple"
    try:
        functions = [function for name, one in rows for function in entries(name)[one]["function"]]
        right = possible or [call for name, one in rows for call in possible_answers(name)[one]]
        check, language = _checker()
    except (InputError, ImportError):
        return {"missing": "bfcl-eval"}
    except KeyError:
        raise ValueError(f"BFCL has no entry {entry!r} with possible answers") from None
    made = [{name: arguments} for name, arguments in calls]
    # The checker must not see changes that it makes itself.
    found = check(copy.deepcopy(functions), made, copy.deepcopy(right), language(category), category, "any")
    if found["valid"]:
        return {"outcome": 1.0, "reason": "the calls are as expected"}
    return {"outcome": 0.0, "reason": _first_error(found)}


def _first_error(found: dict[str, Any]) -> str:
    errors = found.get("error") or [""]
    text = errors if isinstance(errors, str) else str(errors[0])
    details = next((part for part in errors[1:] if isinstance(part, dict)), None) if isinstance(errors, list) else None
    if details:
        inner = next(iter(details.values()))
        text = f"{text} {inner.get('sub_error', [''])[0]}"
    return f"{found.get('error_type', 'error')}: {text}"[:500]
