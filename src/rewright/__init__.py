"""Rewright: trajectories, repair and turn-level credit for language models that use tools.

    import rewright as rw

    tasks = rw.load_tasks("tasks.jsonl")
    trajectories = await rw.rollout(tasks, model="pico", tools=[my_function])
    verdicts = rw.judge(trajectories, tasks)

docs/api.md describes every function. They are imported when they are first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from rewright.core.version import VERSION

if TYPE_CHECKING:
    from rewright.api import CallCredit as CallCredit
    from rewright.api import Repaired as Repaired
    from rewright.api import Run as Run
    from rewright.api import Tool as Tool
    from rewright.api import TrajectoryCredit as TrajectoryCredit
    from rewright.api import build_pairs as build_pairs
    from rewright.api import build_sft as build_sft
    from rewright.api import credit as credit
    from rewright.api import judge as judge
    from rewright.api import load_logs as load_logs
    from rewright.api import load_tasks as load_tasks
    from rewright.api import repair as repair
    from rewright.api import repair_sync as repair_sync
    from rewright.api import rollout as rollout
    from rewright.api import rollout_sync as rollout_sync
    from rewright.api import score as score
    from rewright.api import tool as tool
    from rewright.core.errors import EngineError as EngineError
    from rewright.core.errors import InputError as InputError
    from rewright.core.errors import JudgeError as JudgeError
    from rewright.core.errors import RewrightError as RewrightError
    from rewright.core.records import Gold as Gold
    from rewright.core.records import Quality as Quality
    from rewright.core.records import Repair as Repair
    from rewright.core.records import Task as Task
    from rewright.core.records import ToolCall as ToolCall
    from rewright.core.records import ToolResult as ToolResult
    from rewright.core.records import ToolSpec as ToolSpec
    from rewright.core.records import Trajectory as Trajectory
    from rewright.core.records import Turn as Turn
    from rewright.core.records import Verdict as Verdict

__version__ = VERSION

_HOMES: Final[dict[str, tuple[str, ...]]] = {
    "rewright.api": (
        "CallCredit", "Repaired", "Run", "TrajectoryCredit", "build_pairs", "build_sft", "judge", "load_logs",
        "load_tasks", "repair_sync", "rollout_sync", "score",
    ),
    "rewright.tools.own": ("Tool", "tool"),
    "rewright.core.errors": ("EngineError", "InputError", "JudgeError", "RewrightError"),
    "rewright.core.records": (
        "Gold", "Quality", "Repair", "Task", "ToolCall", "ToolResult", "ToolSpec", "Trajectory", "Turn", "Verdict",
    ),
}  # fmt: skip
_MODULES: Final = {name: module for module, names in _HOMES.items() for name in names}
_PACKAGES: Final = ("credit", "repair", "rollout")
"""Functions of the API that have the name of a package of ours."""

__all__ = ["__version__", *sorted([*_MODULES, *_PACKAGES])]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"rewright.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module 'rewright' has no attribute {name!r}")
    found = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _CallablePackage(ModuleType):
    """A package of ours that is also the function of its name in the API: `rw.credit(…)` and `rw.credit.match(…)`.

    Importing `rewright.credit` makes the package the attribute `credit` of `rewright`, so it has to be both.
    """

    @property
    def _function(self) -> Any:
        return getattr(importlib.import_module("rewright.api"), self.__name__.rpartition(".")[2])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    @property
    def __signature__(self) -> Any:
        return importlib.import_module("inspect").signature(self._function)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return str(self._function.__doc__)


class _Package(ModuleType):
    """This package. It is told when one of its packages is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _PACKAGES and isinstance(value, ModuleType):
            value.__class__ = _CallablePackage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
