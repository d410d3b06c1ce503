"""The run directory: all files of a run, from which it can be resumed, inspected, and redone from any stage.

    runs/<name>/
      recipe.yaml          resolved recipe        environment.json     versions, commit, seed
      tasks.jsonl          tasks of the candidates eval_tasks.jsonl    held-out tasks
      trajectories.jsonl   candidates and repairs verdicts.jsonl, quality.jsonl, repairs.jsonl
      hard.jsonl           candidates without an accepted repair, as text
      sft.jsonl, preferences.jsonl                datasets
      demonstrations.jsonl rollouts of the gold calls, with sft.source: gold
      evaluations/*.jsonl  held-out trajectories and verdicts, a pair of files for each evaluated model, and the
                           trajectories of the tasks that had to be run before, if there are any
      rollouts.jsonl       RL rollouts            models/<stage>/      weights
      metrics.jsonl        one row per logged step or evaluation       state.json    finished stages
      rounds/<n>/          the files of round n > 1, candidates to datasets; its models are models/sft_<n>
      mcp_tools.json       tools that MCP servers listed (if the recipe has any)
      audits/<plan>/       plan, draws and result of an audit of credit signals
      libraries.log        messages of libraries, such as their retries (if there are any)
      tensorboard/<stage>/ event files of TensorBoard
      .view/index          index of the viewer     redo/<stage>/      files of a stage that is being redone

A lock file ensures a single writer. The kernel releases it when the process ends.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import yaml

from rewright.core.errors import InputError, RunLockedError, StorageError
from rewright.core.library_logs import LOG_FILE
from rewright.core.records import Quality, Repair, Task, Trajectory, Verdict
from rewright.core.storage import RecordFile, encode_line, read_bounded, read_checked, read_jsonl, write_atomically
from rewright.pipeline.environment import environment
from rewright.pipeline.migration import check_format, migrate, stored_environment, stored_recipe, upgrade_task
from rewright.pipeline.registry import Stage, stages
from rewright.pipeline.stored_rows import EvaluationRow, MetricsRow, PairRow, SFTRow, StageEntry
from rewright.pipeline.tracking import stage_trackers
from rewright.recipe.consent import check_recipe_code, recipe_code
from rewright.recipe.differences import first_difference
from rewright.recipe.schema import Recipe
from rewright.repair.settings import MAX_ROUNDS
from rewright.training.trackers import TrackedStage, report

__all__ = ["Run", "evaluation_files", "prerequisite_file"]

TASK_FILES = ("tasks.jsonl", "eval_tasks.jsonl")
MCP_FILE = "mcp_tools.json"

_FIRST_FILES = ("recipe.yaml", "environment.json", "tasks.jsonl", "eval_tasks.jsonl", MCP_FILE, ".lock", LOG_FILE)
BEFORE_STAGES = (*_FIRST_FILES, *(f"{name}.tmp" for name in _FIRST_FILES))
"""The files of a run before its first stage has written anything, and what a kill leaves while they are written."""


class Run:
    """A run directory, opened for reading and, inside `locked()`, for writing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trusted: tuple[str, ...] | None = None
        """The code that its recipe may run (`check_code`); None: any, because the caller provided the recipe."""
        self.tasks = RecordFile(self.file("tasks.jsonl"), Task, lambda task: task.id, upgrade_task)
        self.eval_tasks = RecordFile(self.file("eval_tasks.jsonl"), Task, lambda task: task.id, upgrade_task)
        self.trajectories = RecordFile(self.file("trajectories.jsonl"), Trajectory, lambda one: one.id)
        self.verdicts = RecordFile(self.file("verdicts.jsonl"), Verdict, lambda one: one.trajectory_id)
        self.qualities = RecordFile(self.file("quality.jsonl"), Quality, lambda one: one.trajectory_id)
        self.repairs = RecordFile(self.file("repairs.jsonl"), Repair, lambda one: one.original_id)
        self.rollouts = RecordFile(self.file("rollouts.jsonl"), Trajectory, lambda one: one.id)
        self.demonstrations = RecordFile(self.file("demonstrations.jsonl"), Trajectory, lambda one: one.id)

    def file(self, name: str) -> Path:
        """Path of a file or folder, given its name in the run directory."""
        return self.path / name

    @property
    def outer(self) -> Run:
        """The run itself; for the view of a round (`rewright.pipeline.rounds`) the run that it is of."""
        return self

    @property
    def rounds(self) -> int:
        """The number of rounds that have written anything, at least 1."""
        numbers = (int(one.name) for one in _listed(self.path / "rounds") if one.name.isascii() and one.name.isdigit())
        return max([1, *(number for number in numbers if number <= MAX_ROUNDS)])

    def stages(self) -> list[Stage]:
        """All registered stages, and those of the later rounds of this run, in order."""
        return stages(self.rounds)

    def close(self) -> None:
        """Close the record files."""
        for file in vars(self).values():
            if isinstance(file, RecordFile):
                file.close()

    @classmethod
    def create(cls, path: Path, recipe: Recipe, *, resume: bool) -> Run:
        """Create a run directory, or with `resume` open an existing one with the same recipe.

        A run in which no stage has written anything (for example after a mistake in the recipe) is treated as new.

        Raises InputError for an existing run without `resume`, for a missing run or a different recipe with it, and
        for a folder that holds other files. Raises StorageError if the folder cannot be read or written.
        """
        run, is_new = cls.check_place(path, recipe, resume=resume)
        if not is_new:
            return run
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise StorageError(f"cannot make the run directory {path}: {problem.strerror or problem}") from problem
        text = yaml.safe_dump(msgspec.to_builtins(recipe), sort_keys=False, allow_unicode=True)
        run.write_json("environment.json", environment(recipe.seed))
        write_atomically(path / "recipe.yaml", [text.encode()])
        return run

    @classmethod
    def check_place(cls, path: Path, recipe: Recipe, *, resume: bool, lock: bool = True) -> tuple[Run, bool]:
        """Check what `create` needs, and write nothing. Returns the run, and whether it is still to be created.

        Raises as `create` does, and with `lock` RunLockedError while another process writes to the run.
        """
        run = cls(path)
        recipe_file = path / "recipe.yaml"
        try:
            taken = recipe_file.exists()
            foreign_name = not taken and next(
                (entry.name for entry in _listed(path) if entry.name not in BEFORE_STAGES), None
            )
        except OSError as problem:
            raise StorageError(f"cannot look into the run directory {path}: {problem.strerror}") from problem
        if resume and not taken:
            raise InputError(
                f"{path} contains no run to continue: expected a run directory (without --resume: a new run)"
            )
        if foreign_name:
            raise InputError(
                f"{path} is not a run and contains {foreign_name}: expected a new or an empty folder for the run"
            )
        if taken:
            check_format(path)
            untouched = run.is_untouched()
            if lock and (untouched or resume):
                with run.locked(update=False):  # raises if another process is about to write
                    pass
            if untouched:
                pass
            elif not resume:
                raise InputError(
                    f"{path} already contains a run: choose another --run, or continue it: rewright run {path} --resume"
                )
            elif (stored := run.recipe()) != recipe:
                raise InputError(
                    f"{path} was started with another recipe: {first_difference(stored, recipe)}: --resume takes the "
                    f"settings of the run; change those of later stages in {recipe_file}, or start a new run with --run"
                )
            else:
                return run, False
        _check_writable(path)
        return run, True

    def is_untouched(self) -> bool:
        """Whether no stage has written anything. (A folder with only a recipe.yaml is not a run.)"""
        names = {str(path.relative_to(self.path)) for path in self.path.rglob("*") if not path.is_dir()}
        return "environment.json" in names and names <= set(BEFORE_STAGES)

    @classmethod
    def open(cls, path: Path, *, trusted: Sequence[str] = ()) -> Run:
        """Open an existing run. Raises InputError if there is none, or if it has a newer format.

        Its recipe is untrusted input. `trusted` lists the code in it that may run: packages, functions, and the other
        kinds reported by `rewright.recipe.consent.recipe_code`.
        """
        if not (path / "recipe.yaml").exists():
            raise InputError(f"{path} is not a run directory: expected a recipe.yaml in it")
        check_format(path)
        run = cls(path)
        run.trusted = tuple(trusted)
        return run

    def recipe(self) -> Recipe:
        """Load the resolved recipe. Raises InputError if the file is invalid."""
        return stored_recipe(self.path, trusted=self.trusted)

    def check_code(self, *keys: str) -> None:
        """Raise InputError if the recipe refers to untrusted code under one of these keys (no keys: anywhere)."""
        if self.trusted is not None:
            named = [(key, what) for key, what in recipe_code(self.recipe()) if not keys or key in keys]
            check_recipe_code(named, self.trusted, f"{self.path}/recipe.yaml")

    @contextmanager
    def locked(self, *, update: bool = True) -> Iterator[None]:
        """Lock the run for writing, and with `update` convert an older format.

        Raises RunLockedError while another process holds the lock, InputError for a run that cannot be converted, and
        StorageError if the lock file cannot be written.
        """
        try:
            lock = (self.path / ".lock").open("a+")
        except OSError as problem:
            raise StorageError(f"cannot write {self.path}/.lock: {problem.strerror or problem}") from problem
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                holder = lock.read().strip() or "unknown"
                raise RunLockedError(
                    f"{self.path} is being written by process {holder}: wait for it or stop it"
                ) from None
            except OSError as problem:
                raise StorageError(f"cannot lock {self.path}/.lock: {problem.strerror or problem}") from problem
            lock.seek(0)
            lock.truncate()
            lock.write(str(os.getpid()))
            lock.flush()
            if update:
                migrate(self.path, self._task_files(), (stage.id_sections for stage in stages()))
            yield
        finally:
            self.close()
            lock.close()

    def _task_files(self) -> list[RecordFile[Task]]:
        """The task files, including those of stages that are being redone."""
        files = [file for name in TASK_FILES for file in (self.path / name, *self.path.glob(f"redo/*/{name}"))]
        return [RecordFile(file, Task, lambda task: task.id, upgrade_task) for file in files]

    def id_digest(self, digest: str) -> str:
        """The id suffix of trajectories for a digest of settings; converted runs keep their earlier digests."""
        return str((stored_environment(self.path).get("earlier_ids") or {}).get(digest, digest))

    # Stages.

    def state(self) -> dict[str, Any]:
        """The entries of the finished stages: {stage: {"seconds": …}}. Raises InputError for an invalid file."""
        path = self.path / "state.json"
        if not path.exists():
            return {}
        try:
            stages: dict[str, Any] = msgspec.json.decode(read_bounded(path))
            msgspec.convert(stages, dict[str, StageEntry])
        except OSError as problem:
            raise InputError(f"cannot read {path}: {problem.strerror or problem}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            raise InputError(f"{path}: expected the stages of the run: {problem}") from None
        return stages

    def finish(self, stage: str, seconds: float, **details: Any) -> None:
        """Mark a stage as done. `seconds` is added to the time of earlier attempts."""
        state = self.state()
        before = float(state.get(stage, {}).get("seconds", 0.0))
        state[stage] = {"done": True, "seconds": round(before + seconds, 2), **details}
        self.write_json("state.json", state)

    def is_done(self, stage: str) -> bool:
        """Whether the stage is done."""
        return bool(self.state().get(stage, {}).get("done"))

    def undo(self, stage: str) -> None:
        """Mark a stage as not done; when it runs again, it continues from its stored records."""
        state = self.state()
        if state.pop(stage, None) is not None:
            self.write_json("state.json", state)

    def require(self, required: Iterable[Stage]) -> None:
        """Raise InputError if a finished stage lacks one of its files."""
        state = self.state()
        for stage in required:
            about = state.get(stage.name, {})
            if about.get("done"):
                missing = [name for name in stage.required_files(about) if not self.file(name).exists()]
                if stage.evaluates is not None and not any(row["stage"] == stage.name for row in self.metrics()):
                    missing.append("row in metrics.jsonl")
                if missing:
                    raise InputError(
                        f"{self.path}: stage {stage.name} is done, but its {missing[0]} is missing: put it back, or "
                        f"do the stage again with {stage.command(self.path)}"
                    )

    # Other files.

    def evaluation(self, label: str) -> tuple[RecordFile[Trajectory], RecordFile[Verdict]]:
        """The trajectory and verdict files of one evaluation."""
        trajectories, verdicts = (self.file(name) for name in evaluation_files(label))
        trajectories.parent.mkdir(exist_ok=True)
        return (
            RecordFile(trajectories, Trajectory, lambda one: one.id),
            RecordFile(verdicts, Verdict, lambda one: one.trajectory_id),
        )

    def prerequisites(self, label: str) -> RecordFile[Trajectory]:
        """The trajectories of the prerequisites of one evaluation."""
        return RecordFile(self.file(prerequisite_file(label)), Trajectory, lambda one: one.id)

    def model_folder(self, stage: str) -> Path:
        """The folder in which a stage saves its model."""
        return self.file(f"models/{stage}")

    def write_json(self, name: str, value: Any) -> None:
        """Replace a JSON file atomically."""
        write_atomically(self.path / name, [json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"])

    def write_lines(self, name: str, rows: Iterable[dict[str, Any]]) -> int:
        """Replace a JSONL file atomically. Returns the number of rows."""
        count = 0

        def lines() -> Iterator[bytes]:
            nonlocal count
            for row in rows:
                count += 1
                yield encode_line(row)

        write_atomically(self.file(name), lines())
        return count

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """The rows of a JSONL file; empty if it does not exist."""
        path = self.file(name)
        return [row for _, row in read_jsonl(path, dict[str, Any])] if path.exists() else []

    def sft_rows(self) -> list[dict[str, Any]]:
        """The rows of sft.jsonl with token ids and mask. Raises InputError for a row without them."""
        path = self.file("sft.jsonl")
        rows: list[dict[str, Any]] = []
        for number, row in read_checked(path, SFTRow):
            if not rows and "input_ids" not in row:
                raise InputError(f"{path} has no token ids: expected model.tokenizer in the recipe")
            if len(row.get("input_ids", ())) != len(row.get("mask", ())) or not row.get("mask"):
                raise InputError(f"{path}:{number}: expected input_ids and a mask of their length")
            rows.append(row)
        return rows

    def pairs(self) -> list[dict[str, Any]]:
        """The rows of preferences.jsonl, with or without token ids. Raises InputError for an invalid row."""
        return [row for _, row in read_checked(self.file("preferences.jsonl"), PairRow)]

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl. Raises InputError for an invalid row."""
        path = self.path / "metrics.jsonl"
        rows: list[dict[str, Any]] = []
        evaluations = {stage.name for stage in self.stages() if stage.evaluates is not None}
        for number, row in read_jsonl(path, dict[str, Any]) if path.exists() else ():
            kind = EvaluationRow if row.get("stage") in evaluations else MetricsRow
            try:
                msgspec.convert(row, kind)
            except msgspec.ValidationError as problem:
                raise InputError(f"{path}:{number}: not a row of metrics: {problem}") from None
            rows.append(row)
        return rows

    def set_metrics(self, stage: str, rows: Sequence[dict[str, Any]]) -> None:
        """Replace the metrics of a stage in metrics.jsonl, and pass them to its trackers (`report_to`)."""
        others = [row for row in self.metrics() if row["stage"] != stage]
        stage_rows = [{"stage": stage, **row} for row in rows]
        self.write_lines("metrics.jsonl", [*others, *stage_rows])
        recipe, entry = self.recipe(), next((one for one in self.stages() if one.name == stage), None)
        evaluation = entry is not None and entry.evaluates is not None
        tracked = TrackedStage.of(self.path, stage, recipe.project)
        trackers = stage_trackers(recipe, stage if entry is None else entry.base, evaluation=evaluation)
        report(trackers, tracked, stage_rows, evaluation=evaluation)


def evaluation_files(label: str) -> tuple[str, str]:
    """The trajectory and verdict files of an evaluation, relative to the run directory."""
    return f"evaluations/{label}.jsonl", f"evaluations/{label}.verdicts.jsonl"


def prerequisite_file(label: str) -> str:
    """The file of the trajectories of an evaluation's prerequisites, relative to the run directory."""
    return f"evaluations/{label}.prerequisites.jsonl"


def _check_writable(path: Path) -> None:
    """Raise StorageError if the folder cannot be made, or written to."""
    place = next((one for one in (path, *path.absolute().parents) if one.exists()), Path())
    if not place.is_dir():
        problem: OSError = NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if place == path:
            problem = FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    elif not os.access(place, os.W_OK | os.X_OK):
        problem = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    else:
        return
    raise StorageError(f"cannot make the run directory {path}: {problem.strerror}") from problem


def _listed(path: Path) -> list[Path]:
    """The sorted entries of a folder; empty if it does not exist."""
    return sorted(path.iterdir()) if path.is_dir() else []
