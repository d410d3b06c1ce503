"""Turn credit for stored trajectories from any source: what `rewright credit FILE --gold …` reads and computes.

Sources, told apart by what a row holds: our `trajectories.jsonl` (or a run directory), chat logs in OpenAI's or Hugging
Face's convention (`messages`), TRL's completions tables (`prompt` and `completion`, parquet or JSON Lines). Every
assistant message is a turn; what tools and users wrote is never read for calls. Files are streamed.

Not here: the command line, its output (`rewright.credit_report`) and the picture (`rewright.viewer.credit_picture`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewright.benchmarks.rows import Row, read_rows
from rewright.credit import Match, match_many
from rewright.errors import InputError
from rewright.plugins.messages import gold_calls, turns_of_messages
from rewright.plugins.settings import TurnCredit
from rewright.recipe import load_recipe
from rewright.records import Task, Trajectory, Verdict
from rewright.runs import Run
from rewright.storage import read_jsonl
from rewright.strict_json import STRICT, TOLERANT

__all__ = ["Credited", "GoldCalls", "Stored", "credit", "prompt_text", "read_gold", "read_stored", "settings_for"]

_GROUP_KEYS = ("group", "group_id", "task_id")
_PROMPT_KEYS = ("prompt", "messages")
_OUTCOME_KEYS = ("outcome", "reward", "score")
_TRL_COLUMNS = frozenset({"step", "advantage"})


@dataclass(frozen=True, slots=True)
class Stored:
    """One trajectory as it was found.

    `turns`: the calls of each turn. `texts`: what the model wrote in each turn. `golds`: gold calls, None where
    unknown. `outcome`: None where the file has none. `prompt`: the text of the last message before the first turn.
    """

    id: str
    group: str
    turns: list[list[Any]]
    texts: list[str]
    prompt: str = ""
    golds: list[Any] | None = None
    outcome: float | None = None


@dataclass(frozen=True, slots=True)
class Credited:
    """A trajectory with its credit: match of all its calls, turn rewards (T,) and turn advantages (T,)."""

    stored: Stored
    match: Match
    rewards: NDArray[np.float64]
    advantages: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GoldCalls:
    """Gold calls by task id, by the text of the prompt, or one list for every trajectory."""

    by_id: dict[str, list[Any]]
    by_prompt: dict[str, list[Any]]
    for_all: list[Any] | None = None

    def of(self, stored: Stored) -> list[Any] | None:
        """The gold calls of a trajectory, or None."""
        if self.for_all is not None:
            return self.for_all
        found = self.by_id.get(stored.group)
        return self.by_prompt.get(stored.prompt) if found is None else found


def settings_for(path: Path, changes: Sequence[str] = (), *, trusted: Sequence[str] = ()) -> tuple[TurnCredit, float]:
    """How to compute the credit of a file, and `call_weight`: by the run's recipe, else MatchTIR's settings and 1.

    `changes` are `key=value`, keys of `rl.credit`. Raises InputError for a recipe or a key that cannot be read, and for
    an estimator of the run's recipe that is code, unless `trusted` names its package too.
    """
    recipe = path / "recipe.yaml" if path.is_dir() else None
    overrides = [f"rl.credit.{change}" for change in changes]
    if recipe is None or not recipe.exists():
        parity = [f"rl.credit.{key}={json.dumps(value)}" for key, value in TurnCredit().as_mapping().items()]
        recipe, overrides = None, [*parity, *overrides]
    elif not any(change.startswith("estimator=") for change in changes):
        Run.open(path, trusted=trusted).check_code("rl.credit.estimator")
    rl = load_recipe(recipe, overrides).rl
    return rl.credit, rl.call_weight


def read_stored(path: Path | str, *, outcome: str | None = None) -> Iterator[Stored]:
    """The trajectories of a file or a run directory, in order.

    `outcome` names the column that holds the outcome. Without it: the verdicts beside our own files; `outcome`,
    `reward` or `score` of a chat log; the sum of the reward columns of a TRL table (its reward weights are 1 by
    default). Raises InputError with file and row for what cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / "trajectories.jsonl").exists():
            raise InputError(f"{path}: has no trajectories.jsonl: expected a run directory or a file")
        path = path / "trajectories.jsonl"
    first = next(iter(read_rows(path)))
    if first.problem is not None:
        raise InputError(first.problem)
    if "turns" in first.values and "task_id" in first.values:
        yield from _own(path, outcome)
        return
    drop_nulls = path.suffix == ".parquet"  # every row of a table has every column
    known = outcome is None
    for row in read_rows(path):
        if row.problem is not None:
            raise InputError(row.problem)
        known = known or outcome in row.values
        yield _from_row(row, outcome, drop_nulls=drop_nulls)
    if not known:
        raise InputError(
            f"{path}: no row has the column {outcome!r} of the outcome; the first has {_some(list(first.values))}"
        )


def read_gold(path: Path | str) -> GoldCalls:
    """Gold calls out of a file.

    Either one list of calls for every trajectory (a .json file), or rows: our tasks (`id`, `gold.calls`), or any rows
    with `id`, `task_id` or `prompt` and with `gold_calls`, `calls` or `ground_truth`. Raises InputError.
    """
    path = Path(path)
    if path.suffix == ".json" and (calls := _one_list(path)) is not None:
        return GoldCalls({}, {}, calls)
    by_id: dict[str, list[Any]] = {}
    by_prompt: dict[str, list[Any]] = {}
    rows = 0
    for row in read_rows(path):
        if row.problem is not None:
            raise InputError(row.problem)
        rows += 1
        gold = row.values.get("gold")
        value = gold.get("calls") if isinstance(gold, Mapping) else row.get("gold_calls", "calls", "ground_truth")
        calls = _gold(row, value)
        if calls is None:
            continue
        for key in ("id", *_GROUP_KEYS):
            if row.values.get(key) is not None:
                by_id[str(row.values[key])] = calls
        for key in _PROMPT_KEYS:
            if text := prompt_text(row.values.get(key)):
                by_prompt[text] = calls
        if row.get("id", *_GROUP_KEYS) is None and not any(prompt_text(row.values.get(key)) for key in _PROMPT_KEYS):
            raise row.fail("has gold calls, but no 'id', 'task_id' or 'prompt' that says whose they are")
    if not by_id and not by_prompt:
        raise InputError(f"{path}: none of its {rows} rows has gold calls: expected gold.calls, gold_calls or calls")
    return GoldCalls(by_id, by_prompt)


def credit(
    trajectories: Iterable[Stored],
    gold: GoldCalls | None = None,
    settings: TurnCredit | None = None,
    *,
    call_weight: float = 1.0,
) -> list[Credited]:
    """Turn rewards and advantages of trajectories, grouped by `Stored.group`.

    `gold` fills in gold calls where a trajectory brings none of its own. `call_weight` multiplies what the calls earn
    (the rewards of the match too), before the outcome is added (`rl.call_weight`). Raises InputError where no
    trajectory has gold calls: nothing could be computed.
    """
    settings = settings or TurnCredit()
    filled = [
        stored if stored.golds is not None or gold is None else replace(stored, golds=gold.of(stored))
        for stored in trajectories
    ]
    if filled and all(stored.golds is None for stored in filled):
        known = sorted([*gold.by_id, *gold.by_prompt])[:3] if gold is not None else []
        have = sorted({stored.group for stored in filled})[:3]
        raise InputError(
            f"no trajectory has gold calls: the trajectories' tasks are {_some(have)}, the gold file's {_some(known)}"
            if gold is not None
            else "no trajectory has gold calls: give a file of them with --gold"
        )
    turns = [stored.turns for stored in filled]
    golds = [stored.golds for stored in filled]
    outcomes = [stored.outcome for stored in filled]
    call_rewards = [call_weight * row for row in settings.call_rewards(turns, golds)]
    rewards = settings.with_outcomes(call_rewards, outcomes)
    advantages = settings.advantages(rewards, [stored.group for stored in filled], outcomes)
    matches = match_many(
        [([call for turn in stored.turns for call in turn], stored.golds) for stored in filled],
        assignment=settings.assignment,
        unmatched=settings.unmatched,
        reg=settings.reg,
        ot_scale=settings.ot_scale,
        weights=settings.weights,
    )
    if call_weight != 1.0:
        matches = [replace(found, rewards_P=call_weight * found.rewards_P) for found in matches]
    return [Credited(*parts) for parts in zip(filled, matches, rewards, advantages, strict=True)]


def name_of(call: Any) -> str | None:
    """The name in a call of any shape, as it was written; None where there is none."""
    inner = _part(call, "function")
    name = _part(call if _part(call, "name") is not None or inner is None else inner, "name")
    return name if isinstance(name, str) else None


def arguments_of(call: Any) -> Any:
    """The arguments in a call of any shape: an object, or whatever stands in its place."""
    inner = _part(call, "function")
    source = call if _part(call, "name") is not None or inner is None else inner
    found = _part(source, "arguments")
    found = _part(source, "parameters") if found is None else found
    if isinstance(found, str):
        try:
            return TOLERANT.decode(found)
        except ValueError:
            return found
    return found


def _part(call: Any, key: str) -> Any:
    return call.get(key) if isinstance(call, Mapping) else getattr(call, key, None)


def _own(path: Path, outcome: str | None) -> Iterator[Stored]:
    """Our own trajectories; gold calls from the tasks and outcomes from the verdicts that lie beside them."""
    tasks, verdicts = path.parent / "tasks.jsonl", path.parent / "verdicts.jsonl"
    golds: dict[str, list[Any]] = {}
    prompts: dict[str, str] = {}
    for _, task in read_jsonl(tasks, Task) if tasks.exists() else ():
        prompts[task.id] = prompt_text(list(task.messages))
        if task.gold.calls is not None:
            golds[task.id] = list(task.gold.calls)
    outcomes = (
        {verdict.trajectory_id: _number(verdict, outcome) for _, verdict in read_jsonl(verdicts, Verdict)}
        if verdicts.exists()
        else {}
    )
    for _, trajectory in read_jsonl(path, Trajectory):
        yield Stored(
            id=trajectory.id,
            group=trajectory.task_id,
            turns=[list(turn.calls) for turn in trajectory.turns],
            texts=[turn.text for turn in trajectory.turns],
            prompt=prompts.get(trajectory.task_id, ""),
            golds=golds.get(trajectory.task_id),
            outcome=outcomes.get(trajectory.id),
        )


def _number(verdict: Verdict, name: str | None) -> float:
    """The outcome of a verdict, or the metric of that name. Raises InputError where there is none."""
    if name is None or name == "outcome":
        return verdict.outcome
    if name not in verdict.metrics:
        metrics = ", ".join(sorted(verdict.metrics)) or "none"
        raise InputError(f"the verdict of {verdict.trajectory_id} has no metric {name!r}: it has {metrics}")
    return verdict.metrics[name]


def _from_row(row: Row, outcome: str | None, *, drop_nulls: bool) -> Stored:
    """A chat log or a row of a completions table."""
    values = row.values
    if isinstance(values.get("completion"), list) and values.get("prompt") is not None:
        prompt, spoken = values["prompt"], values["completion"]
        label = f"step {values['step']}, " if "step" in values else ""
        found = _table_outcome(row, outcome)
    elif isinstance(values.get("messages"), list):
        messages = values["messages"]
        first = next((i for i, message in enumerate(messages) if _role(message) == "assistant"), len(messages))
        prompt, spoken, label = messages[:first], messages[first:], ""
        found = _outcome(row, (outcome,) if outcome else _OUTCOME_KEYS)
    else:
        keys = ", ".join(map(repr, values)) or "none"
        raise row.fail(
            f"no trajectory in it: expected 'turns' (ours), 'messages' (a chat log), or 'prompt' and 'completion' "
            f"(TRL) as lists of messages; it has {keys}"
        )
    text = prompt_text(prompt)
    group = row.get(*_GROUP_KEYS)
    if drop_nulls:
        spoken = [
            {key: value for key, value in message.items() if value is not None}
            for message in spoken
            if isinstance(message, Mapping)
        ]
    identity = row.get("id")
    return Stored(
        id=f"row {row.index}" if identity is None else str(identity),
        group=str(group) if group is not None else f"{label}{text}",
        turns=turns_of_messages(spoken, drop_nulls=drop_nulls),
        texts=[_content(message) for message in spoken if _role(message) == "assistant"],
        prompt=text,
        golds=_gold(row, values.get("gold_calls")),
        outcome=found,
    )


def _gold(row: Row, value: Any) -> list[Any] | None:
    try:
        return gold_calls(value)
    except ValueError as problem:
        raise row.fail(str(problem)) from None


def _table_outcome(row: Row, name: str | None) -> float | None:
    """The named column, else the sum of the columns of numbers that are not TRL's own bookkeeping."""
    if name is not None:
        return _outcome(row, (name,))
    numbers = [
        _finite(row, value)
        for key, value in row.values.items()
        if key not in _TRL_COLUMNS and isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    return _finite(row, sum(numbers)) if numbers else None


def _outcome(row: Row, keys: Sequence[str]) -> float | None:
    value = row.get(*keys)
    if value is None:
        return None
    if not isinstance(value, (int, float)):
        raise row.fail(f"the outcome {value!r:.200} is no number")
    return _finite(row, value)


def _finite(row: Row, value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise row.fail(f"the outcome {value!r:.200} is not a finite number")
    return number


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, Mapping) else None


def prompt_text(prompt: Any) -> str:
    """The text of the last message of a prompt that a person or program wrote (a text is taken as it is)."""
    if isinstance(prompt, str):
        return prompt
    for message in reversed(prompt if isinstance(prompt, list) else []):
        if _role(message) in ("user", "system"):
            return _content(message)
    return ""


def _content(message: Mapping[str, Any]) -> str:
    """The text of a message, also of one in parts (OpenAI)."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return str(content or "")


def _one_list(path: Path) -> list[Any] | None:
    """The list of calls that a whole .json file is, or None where it holds rows."""
    try:
        value = STRICT.decode(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # the reader of rows says what is wrong
    if not isinstance(value, list) or not value:
        return None
    return value if all(name_of(item) and isinstance(arguments_of(item), dict) for item in value) else None


def _some(keys: Sequence[str]) -> str:
    return ", ".join(repr(key[:60]) for key in keys) + ", …" if keys else "none"
