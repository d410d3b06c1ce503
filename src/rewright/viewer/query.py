"""Filter, sort and list the trajectories of an index."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rewright.core.errors import InputError
from rewright.viewer.index import SELECTIONS, RunIndex
from rewright.viewer.scan import MISSING

__all__ = ["MAX_ROWS", "REPAIRS", "facets", "matching", "ordered", "row_of", "step_groups", "steps"]

REPAIRS: Final = ("", "repaired", "hard")
"""Whether a repair of a candidate was accepted."""
SORTS: Final = ("reward", "outcome", "quality", "turns", "calls", "tokens", "seconds", "step", "task")
MAX_ROWS: Final = 500
"""Rows of one answer."""
TOP_NAMES: Final = 500
"""Tools and tasks that the filters offer."""


def matching(index: RunIndex, filters: Mapping[str, str]) -> NDArray[np.int64]:
    """Return the numbers of the trajectories that pass all filters, in file order.

    `stage`, `stop`, `model`, `task` and `tool` are names; `selection` is one of `SELECTIONS` or `REPAIRS`; `verdict` is
    right, wrong or unjudged; `min` and `max` bound the reward; `step` is a step of RL, from 0. Raises InputError for a
    value that is none of these.
    """
    columns = index.columns
    keep = np.ones(len(index), bool)
    for key in ("stage", "stop", "model", "task"):
        if filters.get(key):
            keep &= columns[key] == index.names[key].find(filters[key])
    if tool := filters.get("tool"):
        known = np.array([tool in names.split("\n") for names in index.names["tools"].known], bool)
        keep &= known[columns["tools"]] if len(known) else False
    if selection := filters.get("selection"):
        if selection in REPAIRS:
            keep &= columns["repair"] == REPAIRS.index(selection)
        elif selection in SELECTIONS:
            keep &= columns["selection"] == SELECTIONS.index(selection)
        else:
            raise InputError(f"selection {selection!r}: expected one of {', '.join((*SELECTIONS[1:], *REPAIRS[1:]))}")
    if verdict := filters.get("verdict"):
        outcome = columns["outcome"]
        verdicts = {"right": outcome >= 0.5, "wrong": outcome < 0.5, "unjudged": np.isnan(outcome)}
        if verdict not in verdicts:
            raise InputError(f"verdict {verdict!r}: expected one of {', '.join(verdicts)}")
        keep &= verdicts[verdict]
    if filters.get("min"):
        keep &= columns["reward"] >= _number(filters, "min")
    if filters.get("max"):
        keep &= columns["reward"] <= _number(filters, "max")
    if filters.get("step"):
        keep &= columns["step"] == _number(filters, "step")
    return np.flatnonzero(keep)


def ordered(index: RunIndex, numbers: NDArray[np.int64], sort: str) -> NDArray[np.int64]:
    """Return the numbers sorted by a column, with `-` before its name in descending order; unknown values are last.

    Raises InputError for another name.
    """
    if not sort:
        return numbers
    key = sort.removeprefix("-")
    if key not in SORTS:
        raise InputError(f"sort {sort!r}: expected one of {', '.join(SORTS)}")
    values = index.columns[key][numbers].astype(np.float64)
    if key == "task":
        names = index.names["task"].known
        ranks = np.empty(len(names))
        ranks[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
        values = ranks[index.columns["task"][numbers]] if len(numbers) else values
    if sort.startswith("-"):
        values = -values
    values = np.where(np.isnan(values), math.inf, values)
    found: NDArray[np.int64] = numbers[np.argsort(values, kind="stable")]
    return found


def row_of(index: RunIndex, number: int) -> dict[str, Any]:
    """Return what the list shows of a trajectory."""
    columns = index.columns
    scan, place = index.place(number)
    step = int(columns["step"][number])
    return {
        "id": index.ids[number],
        "task": index.name("task", number),
        "prompt": index.prompts.get(int(columns["task"][number]), ""),
        "answer": scan.texts[place],
        "stage": index.name("stage", number),
        "stop": index.name("stop", number),
        "model": index.name("model", number),
        "tools": [name for name in index.name("tools", number).split("\n") if name],
        "selection": SELECTIONS[columns["selection"][number]],
        "repair": REPAIRS[columns["repair"][number]],
        "parent": bool(columns["parent"][number]),
        "failed": bool(columns["failed"][number]),
        "step": None if step == MISSING else step,
        **{key: int(columns[key][number]) for key in ("turns", "calls", "tokens")},
        **{key: _known(columns[key][number]) for key in ("outcome", "reward", "quality", "seconds", "turn_reward")},
    }


def facets(index: RunIndex) -> dict[str, Any]:
    """Return the values that each filter can have, with the numbers of their trajectories."""
    columns = index.columns
    found: dict[str, Any] = {}
    for key in ("stage", "stop", "model", "task"):
        counts = np.bincount(columns[key], minlength=len(index.names[key].known))
        known = [(name, int(counts[code])) for code, name in enumerate(index.names[key].known) if counts[code]]
        found[key] = (sorted(known, key=lambda one: -one[1]) if key != "stage" else known)[:TOP_NAMES]
    tools: dict[str, int] = {}
    for code, count in enumerate(np.bincount(columns["tools"], minlength=1)):
        for name in index.names["tools"].known[code].split("\n") if count else ():
            if name:
                tools[name] = tools.get(name, 0) + int(count)
    found["tool"] = sorted(tools.items(), key=lambda one: -one[1])[:TOP_NAMES]
    counted = [(SELECTIONS, "selection"), (REPAIRS, "repair")]
    found["selection"] = [
        (name, int(count))
        for names, key in counted
        for name, count in zip(names[1:], np.bincount(columns[key], minlength=len(names))[1:], strict=True)
        if count
    ]
    outcome = columns["outcome"]
    numbers = (("right", outcome >= 0.5), ("wrong", outcome < 0.5), ("unjudged", np.isnan(outcome)))
    found["verdict"] = [(name, int(mask.sum())) for name, mask in numbers if mask.any()]
    reward = columns["reward"][~np.isnan(columns["reward"])]
    found["reward"] = [float(reward.min()), float(reward.max())] if len(reward) else None
    return found


def steps(index: RunIndex) -> list[dict[str, Any]]:
    """Return the mean success, trajectory reward and turn reward of every step of RL."""
    columns = index.columns
    found = []
    for step in np.unique(columns["step"][columns["step"] != MISSING]):
        mine = np.flatnonzero(columns["step"] == step)
        outcome = columns["outcome"][mine]
        success = np.where(np.isnan(outcome), np.nan, outcome >= 0.5)
        means = {"success": success, "reward": columns["reward"][mine], "turn_reward": columns["turn_reward"][mine]}
        found.append(
            {
                "step": int(step),
                "rollouts": len(mine),
                "groups": len(np.unique(columns["task"][mine])),
                **{key: float(np.nanmean(one)) if (~np.isnan(one)).any() else None for key, one in means.items()},
            }
        )
    return found


def step_groups(index: RunIndex, step: int) -> list[dict[str, Any]]:
    """Return the groups of a step of RL, each with its rows, in the order of their first rollout."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for number in np.flatnonzero(index.columns["step"] == step)[: 4 * MAX_ROWS]:
        row = row_of(index, int(number))
        groups.setdefault(row["task"], []).append(row)
    return [{"task": task, "prompt": rows[0]["prompt"], "rows": rows} for task, rows in groups.items()]


def _number(filters: Mapping[str, str], key: str) -> float:
    try:
        return float(filters[key])
    except ValueError:
        raise InputError(f"{key} is {filters[key]!r:.40}: expected a number") from None


def _known(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
