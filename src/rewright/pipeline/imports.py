"""Make a run directory of trajectories that exist already, for `rewright import`.

The run's tasks are those of the recipe, or a log's own (`rewright.importers.attempts`); those are stored in the run and
named by its recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from rewright.core.errors import InputError
from rewright.core.records import Task, ToolCall, Trajectory
from rewright.core.registry import known
from rewright.dialects import get_dialect
from rewright.importers.attempts import Attempts, read_attempts
from rewright.importers.base import find_importer
from rewright.importers.chat_logs import has_turn_scores, names_apart, with_outcome
from rewright.importers.conversation import Conversation
from rewright.importers.gold_files import read_gold
from rewright.importers.log_files import read_conversations
from rewright.importers.names import without_prefixes
from rewright.importers.own import OWN, is_own
from rewright.pipeline.contamination import check_contamination
from rewright.pipeline.context import Context
from rewright.pipeline.preflight import check_models
from rewright.pipeline.registry import get_stage
from rewright.pipeline.run_directory import Run
from rewright.recipe.loader import load_recipe
from rewright.recipe.schema import Recipe
from rewright.rollout.toolsets import with_recipe_tools
from rewright.tasks.from_recipe import judged_by
from rewright.tasks.settings import TaskSettings

__all__ = ["Imported", "LogOptions", "import_trajectories"]

CHAT: Final = "chat"
"""Dialect in which a message without calls is the answer."""

DATA_STAGES: Final = ("synth", "judge", "score", "repair", "build")
"""Stages of an imported run whose model is served and has no tokenizer here, if nobody chose others."""


class LogOptions(NamedTuple):
    """What to read from a log: `outcome` columns, `answer` column, a file of `gold`, `prefixes` of tool names."""

    outcome: Sequence[str] = ()
    answer: str | None = None
    gold: Path | None = None
    prefixes: Sequence[str] = ()


NO_OPTIONS: Final = LogOptions()


class Imported(NamedTuple):
    """What was imported: number of trajectories and of the tasks that they are of; remarks for the user.

    `needs`: (what `rewright repair` will do, the settings that change it).
    """

    trajectories: int
    tasks: int
    remarks: list[str]
    needs: list[tuple[str, str]]


def import_trajectories(
    file: Path,
    run: Path,
    *,
    recipe: Path | None = None,
    changes: Sequence[str] = (),
    file_format: str | None = None,
    options: LogOptions = NO_OPTIONS,
    compare: bool = True,
) -> Imported:
    """Create the run directory `run` with the trajectories of `file`.

    Args:
        file: file or folder of trajectories or logs.
        run: new run directory.
        recipe: recipe of the run; None for the defaults.
        changes: `section.key=value` overrides of the recipe.
        file_format: name or import path of an importer; None finds the format.
        options: see `LogOptions`.
        compare: compare the tasks with the test questions of benchmarks, as `tasks.contamination` wants it.

    Nothing is written unless all of the file could be read. Raises InputError for invalid input.
    """
    settings = load_recipe(recipe, changes)
    if not compare:
        settings = _without_comparison(settings)
    needs = _needs(run, settings, is_named=recipe is not None or _sets(changes, "model") or _sets(changes, "repair"))
    served_only = settings.model.engine == "openai" and settings.model.tokenizer is None
    if served_only and recipe is None and not _sets(changes, "stages"):
        # Training would be refused; so `rewright run RUN --resume` ends with the data sets.
        settings = msgspec.structs.replace(settings, stages=DATA_STAGES)
    has_tasks = recipe is not None or _sets(changes, "tasks")
    importer = find_importer(file_format, "trajectories") if file_format is not None else None
    if importer is not None and importer.trajectories is not None:
        return _of_known_tasks(file, run, settings, file_format or OWN, needs, has_tasks=has_tasks)
    if importer is None and is_own(file):
        return _of_known_tasks(file, run, settings, OWN, needs, has_tasks=has_tasks)
    chosen = recipe is not None or _sets(changes, "dialect")
    if importer is not None and chosen:
        _check_dialect(settings.dialect, importer.dialect, str(file_format))
    reader = read_conversations if importer is None else importer.conversations
    assert reader is not None
    conversations = [without_prefixes(one, options.prefixes) for one in reader(file)]
    if not conversations:
        raise InputError(f"{file}: has no trajectories")
    if not chosen:
        settings = msgspec.structs.replace(settings, dialect=_dialect_of(conversations))
    for one in conversations:
        _check_dialect(settings.dialect, one.dialect, one.row.place)
    tasks = Context(Run(run), settings).load_tasks() if has_tasks else []
    dialect = get_dialect(settings.dialect)
    offered = [tool.name for tool in with_recipe_tools([Task(id="", messages=())], settings.tools, dialect)[0].tools]
    found = read_attempts(
        with_outcome(file, conversations, options.outcome, ask=False),
        tasks,
        dialect,
        offered=offered,
        golds=None if options.gold is None else read_gold(options.gold, prefixes=options.prefixes, answers=True),
        answer=options.answer,
    )
    if found.made or found.replaced:
        own = TaskSettings(
            format="rewright",
            path=str((run / "tasks.jsonl").absolute()),
            judge=settings.tasks.judge,
            contamination=settings.tasks.contamination,
        )
        settings = msgspec.structs.replace(settings, tasks=own)
        with_recipe_tools(found.tasks, settings.tools, dialect)  # raises for a tool that the dialect cannot call
        if own.judge is not None:
            for task in found.tasks:
                judged_by(own.judge, task, settings.judges)  # raises for a task that lacks what the judge needs
    _store(run, settings, found.trajectories, found.tasks if found.made or found.replaced else None)
    used = len({one.task_id for one in found.trajectories})
    scored = sum(map(has_turn_scores, conversations))
    return Imported(len(found.trajectories), used, _remarks(found, used, scored=scored), needs)


def _of_known_tasks(
    file: Path, run: Path, settings: Recipe, name: str, needs: list[tuple[str, str]], *, has_tasks: bool
) -> Imported:
    """Import with an importer that needs the tasks."""
    importer = find_importer(name, "trajectories")
    assert importer.trajectories is not None
    _check_dialect(settings.dialect, importer.dialect, name)
    if not has_tasks:
        raise InputError(
            f"{file}: trajectories of the format {name} need their tasks: give them with --recipe or tasks=FILE"
        )
    tasks = Context(Run(run), settings).load_tasks()
    trajectories = list(importer.trajectories(file, tasks))
    if not trajectories:
        raise InputError(f"{file}: has no trajectories")
    _store(run, settings, trajectories, None)
    return Imported(len(trajectories), len({one.task_id for one in trajectories}), [], needs)


def _without_comparison(settings: Recipe) -> Recipe:
    return msgspec.structs.replace(settings, tasks=msgspec.structs.replace(settings.tasks, contamination="off"))


def _store(run: Path, settings: Recipe, trajectories: Sequence[Trajectory], tasks: Sequence[Task] | None) -> None:
    check_contamination(Context(Run(run), settings), [get_stage("synth")], tasks=tasks)
    opened = Run.create(run, settings, resume=False)
    with opened.locked():
        if tasks is not None:
            opened.tasks.rewrite(tasks)
        _ = Context(opened, settings).tasks  # loading the tasks stores them in the run
        for trajectory in trajectories:
            opened.trajectories.append(trajectory)
        opened.finish("synth", 0.0, imported=len(trajectories))


def _needs(run: Path, settings: Recipe, *, is_named: bool) -> list[tuple[str, str]]:
    """Return what `rewright repair` will refuse, or what it will use because no model is named."""
    place = run / "recipe.yaml"
    if not is_named:
        model = "model.engine=openai model.base_url=http://HOST:PORT/v1 model.path=NAME"
        words = f"will use {settings.model.path}, the model that ships, because no model is named"
        return [(words, f"import with {model}, or change model in {place}")]
    try:
        check_models(settings, [get_stage("repair")])
    except InputError as problem:
        return [(f"will refuse: {problem}", f"change it in {place}")]
    return []


def _sets(changes: Sequence[str], section: str) -> bool:
    return any(change.partition("=")[0].partition(".")[0] == section for change in changes)


def _dialect_of(conversations: Sequence[Conversation]) -> str:
    """Return the dialect of a log: that of the run of which it is an export, or of its texts, else of native calls."""
    names = known("dialect")
    own = (one.kept.dialect for one in conversations if one.kept is not None and one.kept.dialect in names)
    tagged = next(own, None) or next((one.dialect for one in conversations if one.dialect is not None), None)
    as_text = any("written" in message for one in conversations for message in one.turns)
    return tagged or (CHAT if CHAT in names and not as_text else "hermes")


def _check_dialect(dialect: str, needed: str | None, what: str) -> None:
    if needed not in (None, dialect):
        records = "records with tags" if needed == "tags" else "its records"
        raise InputError(f"{what}: dialect is {dialect!r}: {records} need dialect: {needed}")


class _Calls(NamedTuple):
    """The calls of an attempt, and the gold calls of its task."""

    turns: list[Sequence[ToolCall]]
    golds: Sequence[ToolCall] | None


def _calls_and_golds(found: Attempts) -> list[_Calls]:
    golds = {task.id: task.gold.calls for task in found.tasks}
    return [_Calls([turn.calls for turn in one.turns], golds.get(one.task_id)) for one in found.trajectories]


def _remarks(found: Attempts, used: int, *, scored: int) -> list[str]:
    """Return what a user should know about the tasks. `scored`: number of trajectories with scores of their turns."""
    remarks = []
    known_used = used - found.made
    if found.made:
        beside = f" (known tasks: {known_used})" if known_used else ""
        remarks.append(f"note: tasks made from the log: {found.made}{beside}; their tools replay the log's results")
    if found.replaced:
        remarks.append(
            "note: known tasks whose tools have neither source nor target, and replay the log's results: "
            f"{found.replaced}"
        )
    if found.without_gold:
        remarks.append(
            f"warning: no gold answer and no outcome for {found.without_gold} of {found.made} tasks, so that rewright "
            "judge cannot judge them: name their columns with --answer or --outcome, or give --gold FILE"
        )
    apart = names_apart(_calls_and_golds(found))
    if apart is not None:
        remarks.append(f"warning: {apart}")
    if found.dropped_gold:
        remarks.append(
            f"warning: gold calls with allowed values, which a task cannot hold, are left out of {found.dropped_gold} "
            "tasks (rewright credit LOG reads them)"
        )
    if scored:
        remarks.append(
            f"warning: scores of turns, which a trajectory cannot hold, are left out of {scored} trajectories "
            "(rewright credit LOG --signal score reads them)"
        )
    return remarks
