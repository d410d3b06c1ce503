"""reasoning-gym's procedural data sets as tasks, judged by their own scorers (optional package reasoning-gym).

`metadata.entry` is the encoded entry for the scorer (see `entries.decoded`), `metadata.dataset` the data set whose
scorer is used, and `metadata.settings` that data set's non-default settings.
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
    """Generate `size` tasks of the data set `dataset` (for example `leg_counting`) with the set's `settings`.

    Several comma-separated names are mixed in equal parts. `composite` mixes the sets in the setting `datasets` (names,
    or {name, weight, config}), by default all others. The same arguments give the same tasks on every machine. Raises
    InputError for an unknown data set or setting, and if entries can't be generated.
    """
    if importlib.util.find_spec("reasoning_gym") is None:
        raise InputError("reasoning-gym tasks need the package reasoning-gym: pip install reasoning-gym")
    names = [name.strip() for name in dataset.split(",")]
    if len(names) > 1:
        dataset, settings = COMPOSITE, {"datasets": names, **settings}
    entries = _ask({"dataset": dataset, "size": size, "seed": seed, "settings": settings})
    return [task_of(f"reasoning_gym-{dataset}-{seed}-{number}", **entry) for number, entry in enumerate(entries)]


def _ask(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Generate the entries in a separate process, so that they depend only on the request."""
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
    """Convert an entry of `entries.make_entries` to a task."""
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
    """Return the tasks of `<data set>[:<number of tasks>[:<seed>]]`."""
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


FORMAT = PackageFormat(_selected, seeded=True)
