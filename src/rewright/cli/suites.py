"""`rewright eval --suite NAME`: the benchmarks of a paper one after the other, each a run directory, and its table."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from rewright.benchmarks import find_benchmark
from rewright.benchmarks.scoring.suites import Suite, find_suite, member_row, suite_row, suite_table
from rewright.cli.benchmark_recipes import benchmark_recipe
from rewright.cli.output import as_text, print_json
from rewright.cli.running import check_start, new_run_directory, resumes, start_run
from rewright.core.errors import InputError, MissingDataError
from rewright.core.progress import say
from rewright.core.registry import known
from rewright.recipe.overrides import override_of
from rewright.recipe.schema import Recipe
from rewright.tasks.from_recipe import load_recipe_tasks

__all__ = ["evaluate_suite"]

FILE_KEYS = ("eval", "eval.tasks", "eval.tasks.path", "eval.tasks.format", "eval.tasks.sources")
HUB_SECONDS = 5.0


def evaluate_suite(
    name: str,
    settings: Sequence[str],
    overrides: Sequence[str],
    *,
    data: Sequence[str] = (),
    limit: int | None = None,
    run: Path | None = None,
    resume: bool = False,
    as_json: bool = False,
) -> None:
    """Evaluate a model on all members of a suite whose files can be had, and print the table of the suite.

    Args:
        name: Name of the suite.
        settings: Overrides that set the model.
        overrides: Overrides of the user, which take precedence.
        data: `BENCHMARK=PATH` or `BENCHMARK=FORMAT:PATH` for members.
        limit: Maximum number of tasks of each member.
        run: Directory of the suite; each member's run is a folder in it. Default: runs/NAME.
        resume: Continue the latest run of the suite, with the files of its runs; members that have not begun begin.
        as_json: Print one JSON value.

    A member without data is named in one line, with where to get it, and left out. Raises InputError if no member is
    left, and for a file of `data` that cannot be read.
    """
    suite = find_suite(name)
    folder = run or new_run_directory(Path("runs") / name, resume=resume)
    given = _paths(suite, data)
    stored = _stored(suite, folder) if resume else {}
    paths = stored | given
    taken = next((one for one in overrides if one.partition("=")[0] in FILE_KEYS), None)
    if taken is not None:
        raise InputError(f"eval: {taken} would be of all benchmarks of --suite {name}: expected --data BENCHMARK=PATH")
    limited = [] if limit is None else [f"eval.tasks.limit={limit}"]
    recipes = {
        member.benchmark: benchmark_recipe(
            member.benchmark,
            None,
            None,
            [
                *member.settings, *limited, *settings, *paths.get(member.benchmark, ()), *overrides,
                f"name={name}-{member.benchmark}",
            ],
        )
        for member in suite.members
    }  # fmt: skip
    missing = _missing({benchmark: recipe for benchmark, recipe in recipes.items() if benchmark not in stored}, given)
    for benchmark, why in missing.items():
        say(f"{benchmark} is left out: {why}")
    chosen = {benchmark: recipe for benchmark, recipe in recipes.items() if benchmark not in missing}
    if not chosen:
        raise InputError(f"--suite {name}: no data for any of its benchmarks: expected --data BENCHMARK=PATH")
    if run is not None and folder.exists() and not resume and any(folder.iterdir()):
        raise InputError(f"--run {run}: the directory is not empty: expected a new one, or --resume")
    begun = dict(zip(chosen, resumes([folder / benchmark for benchmark in chosen], resume=resume), strict=True))
    for benchmark, recipe in chosen.items():  # all of them, before the first one runs
        check_start(recipe, folder / benchmark, resume=begun[benchmark])
    runs = {
        benchmark: start_run(recipe, folder / benchmark, resume=begun[benchmark], as_json=as_json)
        for benchmark, recipe in chosen.items()
    }
    model = next(iter(chosen.values())).model.path
    _print(suite, model, runs, missing, folder, as_json=as_json)


def _print(
    suite: Suite, model: str, runs: Mapping[str, Any], missing: Mapping[str, str], folder: Path, *, as_json: bool
) -> None:
    from rewright.reports.summary import report
    from rewright.reports.table import table

    line, reports = as_text(as_json), {benchmark: report(run) for benchmark, run in runs.items()}
    columns: dict[str, dict[str, Any]] = {benchmark: {"missing": why} for benchmark, why in missing.items()}
    for member in suite.members:
        if member.benchmark in reports:
            columns[member.benchmark] = {
                **member_row(member, reports[member.benchmark]["stages"][0]),
                "run": str(runs[member.benchmark].path),
            }
            line(f"{member.benchmark}: {runs[member.benchmark].path}")
            line(table(reports[member.benchmark]))
            line("")
    line(suite_table(suite, model, columns))
    found = {
        "suite": suite.name,
        "model": model,
        "columns": {member.benchmark: columns[member.benchmark] for member in suite.members},
        "average": suite_row(suite, columns),
        "published": [msgspec.structs.asdict(row) for row in suite.published],
        "source": suite.source,
        "note": suite.note,
    }
    path = folder / "suite.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    line(f"written: {path}")
    if as_json:
        print_json(found | {"runs": list(reports.values())})


def _paths(suite: Suite, data: Sequence[str]) -> dict[str, list[str]]:
    """Return the overrides of `--data` by benchmark. Raises InputError for a wrong one."""
    names = [member.benchmark for member in suite.members]
    found: dict[str, list[str]] = {}
    for given in data:
        name, equals, path = given.partition("=")
        if not equals or name not in names or not path:
            raise InputError(f"--data is {given!r}: expected BENCHMARK=PATH, with one of {', '.join(names)}")
        if name in found:
            raise InputError(f"--data {name} is given twice: expected each benchmark once")
        kind, colon, rest = path.partition(":")
        own = [f"eval.tasks.format={kind}"] if colon and kind in known("task_format") else []
        found[name] = [*own, override_of("eval.tasks.path", rest if own else path)]
    return found


def _stored(suite: Suite, folder: Path) -> dict[str, list[str]]:
    """Return the overrides that set the files of the runs that have begun, by benchmark."""
    from rewright.pipeline.run_directory import Run

    found = {}
    for member in suite.members:
        run = Run(folder / member.benchmark)
        if (run.path / "recipe.yaml").exists():
            tasks = run.recipe().eval.tasks
            found[member.benchmark] = [f"eval.tasks.format={tasks.format}", override_of("eval.tasks.path", tasks.path)]
    return found


def _missing(recipes: Mapping[str, Recipe], given: Mapping[str, Any]) -> dict[str, str]:
    """Return why the tasks of a member cannot be had, by benchmark.

    Raises InputError for one whose path is given, and for a file that is here and wrong.
    """
    if any(recipe.eval.tasks.path == "hf:" for benchmark, recipe in recipes.items() if benchmark not in given):
        _offline_without_network()
    missing = {}
    for benchmark, recipe in recipes.items():
        try:
            load_recipe_tasks(recipe.eval.tasks, where="eval.tasks")
        except MissingDataError as problem:
            if benchmark in given:
                raise
            missing[benchmark] = _why(benchmark, problem)
    return missing


def _why(name: str, problem: MissingDataError) -> str:
    benchmark = find_benchmark(name, "--suite")
    if not benchmark.data or "pip install" in str(problem):
        return str(problem)
    unchecked = " (loader unchecked on real files)" if benchmark.unchecked else ""
    return f"its file is not here: expected --data {name}=PATH; get it from {benchmark.data}{unchecked}"


def _offline_without_network() -> None:
    """Make the hub's library read its cache only if the hub cannot be reached: it would try again for each data set."""
    if any(name.lower() in ("https_proxy", "all_proxy") for name in os.environ):
        return  # only the library knows how to reach it
    address = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
        socket.create_connection((address.hostname or "", port), timeout=HUB_SECONDS).close()
    except (OSError, ValueError):
        os.environ["HF_HUB_OFFLINE"] = "1"
