"""reasoning-gym's procedural sets as tasks, judged by the set's own scorer (package reasoning-gym, optional).

`metadata.entry` is the entry that the scorer is given again (`gym_entries.decoded`), `metadata.dataset` the set whose
scorer judges, `metadata.settings` that set's settings where they are not the usual ones.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

from rewright.benchmarks.reasoning_gym.entries import COMPOSITE, encoded
from rewright.core.errors import InputError
from rewright.core.records import Gold, Task
from rewright.tasks.formats import PackageFormat

__all__ = ["FORMAT", "generate", "task_of"]


def generate(dataset: str, size: int, seed: int = 0, **settings: Any) -> list[Task]:
    """`size` tasks of the set `dataset` (for instance `leg_counting`), with the set's own `settings`.

    Several names with commas between them are mixed in equal parts; `composite` mixes what `datasets` says (names, or
    {name, weight, config}), by default all other sets. The same arguments give the same tasks on every machine. Raises
    InputError for an unknown set or setting, and for entries that can't be made.
    """
    if importlib.util.find_spec("reasoning_gym") is None:
        raise InputError("reasoning-gym tasks need the package reasoning-gym: pip install reasoning-gym")
    names = [name.strip() for name in dataset.split(",")]
    if len(names) > 1:
        dataset, settings = COMPOSITE, {"datasets": names, **settings}
    made = _ask({"dataset": dataset, "size": size, "seed": seed, "settings": settings})
    return [task_of(f"reasoning_gym-{dataset}-{seed}-{number}", **one) for number, one in enumerate(made)]


def _ask(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries, from a process in which their making depends on nothing but the request."""
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "rewright.benchmarks.reasoning_gym.entries"],
        input=json.dumps(encoded(request)),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    which = f"reasoning-gym set {request['dataset']!r}"
    if done.returncode != 0:
        raise InputError(f"{which}: {(done.stderr.strip().splitlines() or ['its process died'])[-1]}")
    reply = json.loads(done.stdout)
    if "problem" in reply:
        raise InputError(f"{which}: {reply['problem']}")
    return list(reply["entries"])


def task_of(identity: str, dataset: str, settings: dict[str, Any], entry: dict[str, Any]) -> Task:
    """The task of one entry that `gym_entries.make_entries` has made."""
    answer = entry.get("answer")
    return Task(
        id=identity,
        messages=({"role": "user", "content": entry["question"]},),
        gold=Gold(answers=(str(answer),) if answer is not None else None),
        source=f"reasoning_gym/{dataset}",
        judge="reasoning_gym",
        metadata={"dataset": dataset, "entry": entry, **({"settings": settings} if settings else {})},
    )


def _selected(path: str, seed: int) -> list[Task]:
    """The tasks of `<set>[:<number of tasks>[:<seed>]]`."""
    dataset, *numbers = path.split(":")
    if len(numbers) > 2 or not all(number.isdecimal() and int(number) < 2**31 for number in numbers):
        raise InputError(
            f"{path}: expected <set>, <set>:<number of tasks> or <set>:<number of tasks>:<seed>, for instance "
            "leg_counting:100"
        )
    size, seed = int(numbers[0]) if numbers else 100, int(numbers[1]) if len(numbers) == 2 else seed
    if size < 1:
        raise InputError(f"{path}: the number of tasks is {size}, expected at least 1")
    return generate(dataset, size, seed)


FORMAT = PackageFormat(_selected)
