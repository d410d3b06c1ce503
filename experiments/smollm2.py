"""SmolLM2-135M learns to call functions: base, SFT on gold calls, RL, on functions or plans that it has not seen.

    python experiments/smollm2.py                  # hours on two cores; go on with the same command
    python experiments/smollm2.py --quick          # the same with a few tasks and steps
    python experiments/smollm2.py --report         # the table from the results file, nothing is run
    python experiments/smollm2.py --wrong 50       # wrong outputs beside the gold calls, to look at

    python experiments/smollm2.py --setting complexfuncbench      # calls that depend on each other, several turns

Every part is an ordinary run of `recipes/smollm2-SETTING.yaml` in its own run directory (--runs): the base model and
SFT once, and each RL method for each seed, which starts from the SFT model. A part that was stopped is resumed. A
finished part is a line in experiments/results/smollm2.jsonl, which is only ever appended to. The page is
docs/benchmarks/smollm2.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewright.core.errors import InputError
from rewright.core.records import Trajectory
from rewright.core.statistics import mean_interval, paired_difference, proportion_interval
from rewright.pipeline.run_directory import Run

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "smollm2.jsonl"

MOVES = "rl.entropy=0.001"
"""A gradient for `--quick`, in which all rollouts may be wrong: without one RL refuses to save a model."""


@dataclass(frozen=True)
class Setting:
    """One set of tasks: its recipe, and the RL methods that are compared on it, as settings of the recipe."""

    recipe: Path
    methods: dict[str, tuple[str, ...]]
    quick: tuple[str, ...]
    apart: tuple[str, ...] = ()
    """Categories that are not part of the first number, because doing nothing is right in them."""


SETTINGS = {
    "bfcl": Setting(
        recipe=HERE.parent / "recipes" / "smollm2-bfcl.yaml",
        methods={"graded": ("rl.call_weight=1.0",), "binary": ("rl.call_weight=0.0",)},
        quick=(
            "tasks.limit=18", "eval.tasks.limit=10", "model.slots=8", "sft.epochs=1", "sft.batch_size=8",
            "rl.steps=2", "rl.tasks_per_step=2", "rl.generations=4", "rl.micro_batch_size=4", "limits.turn_tokens=120",
            MOVES,
        ),
        apart=("irrelevance", "live_irrelevance", "live_relevance"),
    ),
    "complexfuncbench": Setting(
        recipe=HERE.parent / "recipes" / "smollm2-complexfuncbench.yaml",
        methods={
            "outcome": ("rl.call_weight=0.0", "rl.credit.estimator=grpo"),
            "graded": ("rl.credit.estimator=grpo",),  # the same match reward, one advantage for a trajectory
            "matchtir": (),
        },
        quick=(
            "tasks.limit=12", "eval.tasks.limit=6", "model.slots=8", "sft.epochs=1", "sft.batch_size=4",
            "rl.steps=1", "rl.tasks_per_step=2", "rl.generations=4", "rl.micro_batch_size=4", "limits.turn_tokens=120",
            "limits.turns=4", MOVES,
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One run: a stage (`base`, `sft` or the name of an RL method) with a seed."""

    setting: str
    stage: str
    seed: int
    overrides: tuple[str, ...]

    @property
    def evaluation(self) -> str:
        """The label of its evaluation."""
        return self.stage if self.stage in ("base", "sft") else "rl"

    def folder(self, runs: Path) -> Path:
        """Its run directory. Settings besides those of --quick are part of the name, so that each has its own run."""
        quick = SETTINGS[self.setting].quick
        own = self.overrides[len(quick) :] if self.overrides[: len(quick)] == quick else self.overrides
        settings = f"-{hashlib.sha256(json.dumps(own).encode()).hexdigest()[:8]}" if own else ""
        return runs / self.setting / f"{self.stage}-{self.seed}{settings}"

    def command(self, runs: Path) -> list[str]:
        """The command that runs it, or resumes it."""
        rewright, folder = [sys.executable, "-m", "rewright", "run"], self.folder(runs)
        if (folder / "recipe.yaml").exists():
            return [*rewright, str(folder), "--resume"]
        own: tuple[str, ...] = ("stages=[eval_base]",)
        if self.stage == "sft":
            own = ("stages=[sft, eval_sft]",)
        elif self.stage != "base":
            start = Part(self.setting, "sft", 0, self.overrides).folder(runs) / "models" / "sft"
            own = ("stages=[rl, eval_rl]", f"model.path={start}", *SETTINGS[self.setting].methods[self.stage])
        recipe = str(SETTINGS[self.setting].recipe)
        return [*rewright, recipe, "--run", str(folder), f"seed={self.seed}", *self.overrides, *own]


def parts(setting: str, methods: Sequence[str], seeds: int, overrides: tuple[str, ...]) -> list[Part]:
    """All parts in the order in which they run: the base model, SFT, then each seed of RL with all methods."""
    return [
        Part(setting, "base", 0, overrides),
        Part(setting, "sft", 0, overrides),
        *(Part(setting, method, seed, overrides) for seed in range(seeds) for method in methods),
    ]


def read_results(path: Path) -> list[dict[str, Any]]:
    """The finished parts. A line that was cut off is ignored."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def row_of(part: Part, rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The line of a finished part; None if there is none."""
    key = (part.setting, part.stage, part.seed, list(part.overrides))
    return next((row for row in rows if (row["setting"], row["stage"], row["seed"], row["overrides"]) == key), None)


def outcomes(run: Run, evaluation: str) -> dict[str, dict[str, int]]:
    """1 for each held-out task that is right, else 0: by category and task id."""
    trajectories, verdicts = run.evaluation(evaluation)
    right = {verdict.trajectory_id: int(verdict.correct) for verdict in verdicts}
    solved = {one.task_id: right.get(one.id, 0) for one in trajectories}
    found: dict[str, dict[str, int]] = {}
    for task in run.eval_tasks:
        found.setdefault(str(task.metadata.get("category", "")), {})[task.id] = solved.get(task.id, 0)
    return found


def several_turns(trajectories: Iterable[Trajectory]) -> float:
    """The share of trajectories in which a turn with a call was followed by another turn."""
    found = [len(one.turns) > 1 for one in trajectories]
    return sum(found) / max(1, len(found))


def run_part(part: Part, runs: Path, results: Path) -> None:
    """Run one part and append its line. Raises InputError if the command fails."""
    started = time.time()
    command = part.command(runs)
    print(f"{part.setting} {part.stage} seed {part.seed}: {' '.join(command[3:])}", file=sys.stderr, flush=True)
    if subprocess.run(command, check=False).returncode:
        raise InputError(f"{part.folder(runs)}: the command failed; go on with the same command after mending it")
    run = Run.open(part.folder(runs))
    evaluated = next(row for row in run.metrics() if row["stage"] == f"eval_{part.evaluation}")
    row = {
        "setting": part.setting,
        "stage": part.stage,
        "seed": part.seed,
        "overrides": list(part.overrides),
        "success": evaluated["success"],
        "calls": evaluated.get("calls"),
        "outcomes": outcomes(run, part.evaluation),
        "several_turns": several_turns(run.evaluation(part.evaluation)[0]),
        "rollouts_with_several_turns": None if part.evaluation != "rl" else several_turns(run.rollouts),
        "stage_seconds": {name: about.get("seconds") for name, about in run.state().items()},
        "seconds": round(time.time() - started, 1),
        "environment": json.loads((part.folder(runs) / "environment.json").read_text()).get("versions"),
    }
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def report(setting: str, rows: Sequence[dict[str, Any]]) -> str:
    """The table: success with its 95% interval over tasks, for each part, and RL against the SFT that it starts from.

    The difference is that of the same tasks, averaged over the seeds of each task.
    """
    apart = SETTINGS[setting].apart
    chosen = [row for row in rows if row["setting"] == setting]
    categories = list(dict.fromkeys(name for row in chosen for name in row["outcomes"]))
    lines = [f"{'stage':<9}{'seed':>5}{'calls':>26}" + "".join(f"{_short(name):>16}" for name in categories)]
    for row in chosen:
        graded = [value for name, found in row["outcomes"].items() if name not in apart for value in found.values()]
        cells = [_share(list(row["outcomes"].get(name, {}).values())) for name in categories]
        line = f"{row['stage']:<9}{row['seed']:>5}{_success(graded):>26}"
        lines.append(line + "".join(f"{cell:>16}" for cell in cells))
    lines += _differences(chosen, apart)
    return "\n".join(lines)


def _differences(rows: Sequence[dict[str, Any]], apart: Sequence[str]) -> Iterator[str]:
    start = next((row["outcomes"] for row in rows if row["stage"] == "sft"), None)
    if start is None:
        return
    before = {key: value for found in start.values() for key, value in found.items()}
    for stage in dict.fromkeys(row["stage"] for row in rows if row["stage"] not in ("base", "sft")):
        by_task: dict[str, list[int]] = {}
        seeds = [row for row in rows if row["stage"] == stage]
        for row in seeds:
            for name, found in row["outcomes"].items():
                for task, value in found.items() if name not in apart else ():
                    by_task.setdefault(task, []).append(value - before[task])
        values = [sum(found) / len(found) for found in by_task.values()]
        found = paired_difference(values) if len(seeds) == 1 else mean_interval(values)
        yield (
            f"{stage} - sft: {100 * found.value:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}], "
            f"{len(seeds)} seed{'s' * (len(seeds) > 1)}, {len(values)} tasks"
        )


def _short(name: str) -> str:
    return name.replace("parallel", "par").replace("multiple", "mult").replace("irrelevance", "irrel")


def _share(values: Sequence[int]) -> str:
    return f"{sum(values)}/{len(values)}" if values else "-"


def _success(values: Sequence[int]) -> str:
    found = proportion_interval(sum(values), len(values))
    return f"{100 * found.value:.1f}% [{100 * found.low:.1f}, {100 * found.high:.1f}] {len(values)}"


def wrong(part: Part, runs: Path, count: int) -> Iterator[str]:
    """Wrong outputs of a part's evaluation, spread over the held-out tasks: category, reason, gold calls, output."""
    run = Run.open(part.folder(runs))
    trajectories, verdicts = run.evaluation(part.evaluation)
    tasks = {task.id: task for task in run.eval_tasks}
    reasons = {verdict.trajectory_id: verdict.reason for verdict in verdicts if not verdict.correct}
    found = [one for one in trajectories if one.id in reasons]
    for one in found[:: max(1, len(found) // count)][:count]:
        task = tasks[one.task_id]
        gold = [{"name": call.name, "arguments": call.arguments} for call in task.gold.calls or ()]
        text = " ".join("".join(turn.text for turn in one.turns).split())
        yield (
            f"{one.task_id} ({task.metadata.get('category')}, {one.stop_reason}): {reasons[one.id]}\n"
            f"  gold {json.dumps(gold, ensure_ascii=False)}\n  said {text}\n"
        )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="SmolLM2-135M on real function-calling tasks: base, SFT, GRPO.")
    parser.add_argument("--setting", choices=SETTINGS, default="bfcl", help="the tasks")
    parser.add_argument("--methods", nargs="*", help="RL methods; default: all of the setting")
    parser.add_argument("--seeds", type=int, default=3, help="how many, of each RL method")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the recipe, for all parts"
    )
    parser.add_argument("--quick", action="store_true", help="a few tasks and steps: does everything run?")
    parser.add_argument("--runs", type=Path, default=Path("build/smollm2"), help="where the run directories are kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="print the table, run nothing")
    parser.add_argument("--wrong", type=int, metavar="N", help="print N wrong outputs of --stage, run nothing")
    parser.add_argument("--stage", default="sft", help="--wrong: base, sft or an RL method, of seed 0")
    options = parser.parse_args(arguments)
    known = SETTINGS[options.setting].methods
    options.methods = list(known) if options.methods is None else options.methods
    if unknown := [name for name in options.methods if name not in known]:
        parser.error(f"--methods: {unknown[0]} is none of {', '.join(known)}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, then print the table."""
    options = parse(arguments)
    overrides = (*(SETTINGS[options.setting].quick if options.quick else ()), *options.set)
    runs = options.runs / "quick" if options.quick else options.runs
    if options.quick and options.results == RESULTS:
        options.results = runs / "results.jsonl"
    if options.wrong is not None:
        print("\n".join(wrong(Part(options.setting, options.stage, 0, overrides), runs, options.wrong)))
        return
    if not options.report:
        for part in parts(options.setting, options.methods, options.seeds, overrides):
            if row_of(part, read_results(options.results)) is None:
                run_part(part, runs, options.results)
    rows = [row for row in read_results(options.results) if row["overrides"] == list(overrides)]
    print(report(options.setting, rows))


if __name__ == "__main__":
    try:
        main()
    except InputError as problem:
        sys.exit(f"error: {problem}")
