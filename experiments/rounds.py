"""Does a second round of repair beat the first, and does DPO on the pairs add to SFT? On the almanac and on the town.

    python experiments/rounds.py                 # five seeds a world; stop it and go on with the same command
    python experiments/rounds.py --quick         # one seed, few tasks: minutes
    python experiments/rounds.py --report        # the tables from the results file, nothing is run

A seed of a world has its own tasks, and the arms below, all evaluated on the same held-out tasks:

    base                   the policy before any training
    round 1, round 2       SFT after one round, and after a second one (`repair.rounds: 2`)
    round 1, same steps    SFT on the set of round 1 for as many steps as round 2 had
    round 1, twice sampled SFT after one round with as many candidates as two rounds have
    dpo                    DPO on the pairs of round 1, from the policy of round 1 (`dpo`)
    splice                 round 1 with splice repairs (`repair.form: splice`) of the same candidates
    self                   round 1 with self-repair (`repair.by: self`) of the same candidates

All arms repair with the same number of attempts and the same temperature. An arm that has nothing to train or evaluate,
because round 1 has kept and repaired nothing, is a line without a success rate.

Every finished arm is a line in experiments/results/rounds.jsonl, which is only ever appended to. Differences are taken
within a seed; intervals are Student's, 95%. One process a core. The page is docs/rounds.md.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

if __name__ in ("__main__", "__mp_main__"):
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in every job

import msgspec
from learning_curves.estimates import estimate, shown
from learning_curves.schedule import append, each_result, read_results

from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.pipeline.rounds import run_of_round
from rewright.pipeline.run_directory import Run
from rewright.pipeline.runner import Pipeline
from rewright.recipe.loader import load_recipe
from rewright.recipe.schema import Recipe

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "rounds.jsonl"
DEFAULT_SIZE: Final[dict[str, Any]] = {"tasks_made": None, "held_out": None, "settings": []}
RECIPES: Final = {"almanac": HERE.parent / "recipes/autotraj.yaml", "town": HERE.parent / "recipes/rewright.yaml"}
ROUND: Final = ("synth", "judge", "score", "repair", "build", "sft", "eval_sft")
ARMS: Final = (
    "base", "round 1", "round 2", "round 1, same steps", "round 1, twice sampled", "dpo", "splice", "self",
)  # fmt: skip
COMPARED: Final = (
    ("round 2", "round 1"),
    ("round 2", "round 1, same steps"),
    ("round 2", "round 1, twice sampled"),
    ("dpo", "round 1"),
    ("splice", "round 1"),
    ("self", "round 1"),
    ("round 1", "base"),
)
REPAIR: Final = ("repair.attempts=4", "repair.temperature=0.7")
"""The same for every arm: at temperature 0 a policy repeats its failure, so that self-repair would be at a loss."""
REPAIRING: Final = ("round 1", "round 2", "round 1, twice sampled", "splice", "self")
DPO: Final = ("dpo.learning_rate=2.0e-5", "dpo.batch_size=16")
"""For a policy of a million parameters."""

Row = dict[str, Any]


class Job(NamedTuple):
    """The arms of one seed of a world. They share runs, so one process does them in turn."""

    world: str
    seed: int


def recipe_of(options: argparse.Namespace, job: Job, stages: Sequence[str], *more: str) -> Recipe:
    """The recipe of a seed: its own tasks, the same held-out ones."""
    own = [
        f"seed={job.seed}",
        f"tasks.seed={job.seed}",
        f"stages={json.dumps(list(stages))}",
        "model.slots=32",
        *REPAIR,
        *DPO,
    ]
    limits = [f"tasks.count={options.tasks}"] if options.tasks else []
    held_out = [f"eval.tasks.count={options.held_out}"] if options.held_out else []
    return load_recipe(RECIPES[job.world], [*own, *limits, *held_out, *options.set, *more])


def done(folder: Path, recipe: Recipe, prepare: Callable[[Run], None] | None = None) -> Run:
    """A run of the recipe with all its stages done; one that was stopped goes on."""
    run = Run.create(folder, recipe, resume=(folder / "recipe.yaml").exists())
    with run.locked():
        if prepare is not None and not run.state():
            prepare(run)
        Pipeline(run).run_all()
    return run


def folder_of(options: argparse.Namespace, job: Job, arm: str) -> Path:
    """Where the run of an arm stands. Runs of other sizes or settings stand elsewhere."""
    size = size_of(options)
    given = any(value for value in size.values())
    mark = f"-{hashlib.blake2b(json.dumps(size).encode(), digest_size=4).hexdigest()}" if given else ""
    return Path(options.runs) / f"{job.world}-{job.seed}-{arm.replace(', ', '-').replace(' ', '-')}{mark}"


def size_of(options: argparse.Namespace) -> Row:
    """What a line is of, beside world, seed and arm: lines of other sizes or settings are of other experiments."""
    return {"tasks_made": options.tasks, "held_out": options.held_out, "settings": list(options.set)}


def size_in(row: Row) -> Row:
    """The same of a line of the results file."""
    return DEFAULT_SIZE | {key: row[key] for key in DEFAULT_SIZE if key in row}


def rounds_of(options: argparse.Namespace, job: Job) -> Run:
    """Both rounds."""
    recipe = recipe_of(options, job, ("eval_base", *ROUND), "repair.rounds=2")
    return done(folder_of(options, job, "rounds"), recipe)


def has_policy(run: Run) -> bool:
    """Whether SFT of round 1 had something to learn from."""
    return not run.state()["sft"].get("skipped")


def same_steps(options: argparse.Namespace, job: Job, arm: str) -> Run | None:
    """SFT on the rows of round 1 for the steps of round 2. None: round 1 has no rows."""
    first = rounds_of(options, job)
    if not has_policy(first):
        return None
    rows, second = first.read_lines("sft.jsonl"), run_of_round(first, 2).read_lines("sft.jsonl")
    epochs = recipe_of(options, job, ROUND).sft.epochs * len(second) / len(rows)
    recipe = recipe_of(options, job, ("sft", "eval_sft"), f"sft.epochs={epochs}")
    return done(folder_of(options, job, arm), recipe, lambda run: _write(run, "sft.jsonl", rows))


def twice_sampled(options: argparse.Namespace, job: Job, arm: str) -> Run:
    """One round with twice the candidates."""
    count = recipe_of(options, job, ROUND).synth.n
    return done(folder_of(options, job, arm), recipe_of(options, job, ROUND, f"synth.n={2 * count}"))


def dpo(options: argparse.Namespace, job: Job, arm: str) -> Run | None:
    """DPO on the pairs of round 1, from its policy. None: it has no policy, or no pairs to train on."""
    first = rounds_of(options, job)
    if not has_policy(first) or not any(pair["split"] == "train" for pair in first.pairs()):
        return None

    def prepare(run: Run) -> None:
        shutil.copytree(first.model_folder("sft"), run.model_folder("sft"), dirs_exist_ok=True)
        for name in ("sft.jsonl", "preferences.jsonl"):
            _write(run, name, first.read_lines(name))
        run.write_json("state.json", {"sft": first.state()["sft"]})

    return done(folder_of(options, job, arm), recipe_of(options, job, ("dpo", "eval_dpo")), prepare)


def repaired(options: argparse.Namespace, job: Job, arm: str, *settings: str) -> Run:
    """Round 1 with another repair of the same candidates."""
    first = rounds_of(options, job)
    stages = ("repair", "build", "sft", "eval_sft")

    def prepare(run: Run) -> None:
        candidates = [one for one in first.trajectories if one.provenance.parent is None]
        kept = {one.id for one in candidates}
        run.trajectories.rewrite(candidates)
        run.verdicts.rewrite(one for one in first.verdicts if one.trajectory_id in kept)
        run.qualities.rewrite(first.qualities)
        run.write_json("state.json", {name: first.state()[name] for name in ("synth", "judge", "score")})

    return done(folder_of(options, job, arm), recipe_of(options, job, stages, *settings), prepare)


def _write(run: Run, name: str, rows: Sequence[Row]) -> None:
    run.write_lines(name, rows)


def run_of_arm(options: argparse.Namespace, job: Job, arm: str) -> tuple[Run | None, str, int]:
    """Run an arm. Returns its run, the label of its evaluation and the round of its sets. No run: nothing to train."""
    if arm in ("base", "round 1", "round 2"):
        label = {"base": "base", "round 1": "sft", "round 2": "sft_2"}[arm]
        return rounds_of(options, job), label, 2 if arm == "round 2" else 1
    if arm == "round 1, same steps":
        return same_steps(options, job, arm), "sft", 1
    if arm == "round 1, twice sampled":
        return twice_sampled(options, job, arm), "sft", 1
    if arm == "dpo":
        return dpo(options, job, arm), "dpo", 1
    settings = ("repair.form=splice",) if arm == "splice" else ("repair.model=null", "repair.by=self")
    return repaired(options, job, arm, *settings), "sft", 1


def one_arm(options: argparse.Namespace, job: Job, arm: str) -> Row:
    """Run an arm and measure it. Repairs are those that the arm has made; base, DPO and more steps make none."""
    run, label, number = run_of_arm(options, job, arm)
    row: Row = {"world": job.world, "seed": job.seed, "arm": arm, **size_of(options), "success": None}
    if run is None:
        return row
    state = run.state()
    sets = run_of_round(run, number)
    repairs = list(sets.repairs) if arm in REPAIRING else None
    counts = [repair.tokens for repair in repairs or ()]
    tokens = [count for count in counts if count is not None]
    trained = label == "base" or not state.get(label, {}).get("skipped")
    found = (row for row in run.read_lines("metrics.jsonl") if row["stage"] == f"eval_{label}")
    metrics = next(found, {}) if trained else {}
    return row | {
        "success": metrics.get("success"),
        "tasks": metrics.get("tasks"),
        "rows": None if arm == "base" else len(sets.read_lines("sft.jsonl")),
        "repairs": None if repairs is None else len(repairs),
        "repaired": None if repairs is None else sum(repair.accepted for repair in repairs),
        "tokens_per_repair": sum(tokens) / len(tokens) if tokens and len(tokens) == len(counts) else None,
        "unsolved": state.get("synth_2", {}).get("unsolved") if arm == "round 2" else None,
        "dpo_accuracy": state.get("dpo", {}).get("accuracies", {}).get("accuracy"),
        "seconds": round(sum(float(entry["seconds"]) for entry in state.values())),
    }


def work(job: Job, *, options: argparse.Namespace, have: Mapping[Job, frozenset[str]]) -> tuple[list[Row], str | None]:
    """The missing arms of one seed, in a process of their own. Runs that are finished are not made again.

    Returns the lines, and what went wrong: an arm that fails leaves the others of its seed, and the other seeds.
    """
    rows: list[Row] = []
    problems: list[str] = []
    for arm in options.arms:
        if arm in have[job]:
            continue
        try:
            rows.append(one_arm(options, job, arm))
        except Exception as problem:  # whatever it is, the others go on
            problems.append(f"{job.world} seed {job.seed} {arm}: {type(problem).__name__}: {problem}")
            say(problems[-1])
            continue
        success = rows[-1]["success"]
        said = "nothing to train or evaluate" if success is None else f"success {100 * success:.1f}%"
        say(f"{job.world} seed {job.seed} {arm}: {said}")
    return rows, "; ".join(problems) or None


def run_all(options: argparse.Namespace) -> None:
    """Run the missing arms, one process a core; the lines of a seed are appended when all of its arms are done.

    Raises InputError at the end if an arm has failed. The same command tries it again.
    """
    rows = [row for row in read_results(options.results) if size_in(row) == size_of(options)]
    append(options.results, ())  # cuts off a torn last line
    missing: dict[Job, frozenset[str]] = {}
    for job in (Job(world, seed) for seed in range(options.seeds) for world in options.worlds):
        have = frozenset(row["arm"] for row in rows if (row["world"], row["seed"]) == job)
        if not have >= {*options.arms}:
            missing[job] = have
    problems: list[str] = []
    run = functools.partial(work, options=options, have=missing)
    for _, (made, problem), left in each_result(list(missing), run, processes=options.jobs):
        append(options.results, made)
        problems += [] if problem is None else [problem]
        say(f"{len(missing) - left} of {len(missing)} seeds are done")
    if problems:
        raise InputError("; ".join(problems))


def table(rows: Sequence[Row]) -> str:
    """Markdown: the arms of each world, then the differences within seeds."""
    lines: list[str] = []
    for world in RECIPES:
        found: dict[str, dict[int, Row]] = {arm: {} for arm in ARMS}
        for row in rows:
            if row["world"] == world:
                found[row["arm"]][row["seed"]] = row
        if not any(found.values()):
            continue
        lines += [f"### {world}", ""]
        lines += ["| arm | seeds | SFT rows | repaired | tokens per repair | success, % |", "|---|---|---|---|---|---|"]
        for arm, own in found.items():
            if own:
                keys = ("rows", "repaired", "tokens_per_repair")
                means = [_mean([row.get(key) for row in own.values()]) for key in keys]
                known = [row["success"] for row in own.values() if row["success"] is not None]
                success = shown(estimate(known)) if known else "-"
                lines.append(f"| {arm} | {len(own)} | {means[0]} | {means[1]} | {means[2]} | {success} |")
        lines += ["", "| difference | seeds | success, points |", "|---|---|---|"]
        for better, worse in COMPARED:
            both = [(found[better][seed], found[worse][seed]) for seed in found[better].keys() & found[worse].keys()]
            gains = [
                one["success"] - other["success"]
                for one, other in both
                if one["success"] is not None and other["success"] is not None
            ]
            if gains:
                lines.append(f"| {better} - {worse} | {len(gains)} | {shown(estimate(gains), '+')} |")
        lines.append("")
    return "\n".join(lines)


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.0f}" if known else "-"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Rounds of repair, splice, self-repair and DPO on two worlds.")
    parser.add_argument("--worlds", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--tasks", type=int, default=None, help="tasks of a seed; default: the recipe's")
    parser.add_argument("--held-out", type=int, default=None, help="held-out tasks; default: the recipe's")
    parser.add_argument("--set", nargs="*", default=[], metavar="section.key=value", help="overrides of the recipes")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one core each")
    parser.add_argument("--runs", type=Path, default=Path("build/rounds"), help="where the runs are kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="print the table, run nothing")
    parser.add_argument("--quick", action="store_true", help="one seed, 24 tasks, 20 held-out ones: minutes")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.tasks, options.held_out = 1, options.tasks or 24, options.held_out or 20
        options.results = options.results.with_name(f"{options.results.stem}_quick.jsonl")
        options.runs = options.runs.with_name(f"{options.runs.name}-quick")
    return options


def main() -> None:
    """Run what is missing, then report."""
    options = parse()
    try:
        if not options.report:
            run_all(options)
        found: dict[str, list[Row]] = {}
        for row in read_results(options.results):
            if size_in(row) == size_of(options) or (options.report and size_of(options) == DEFAULT_SIZE):
                found.setdefault(json.dumps(size_in(row)), []).append(row)
        if not found:
            raise InputError(f"{options.results}: no finished arm yet")
        for rows in found.values():
            size = {key: value for key, value in size_in(rows[0]).items() if value}
            if size:
                print("##", ", ".join(f"{key} {value}" for key, value in size.items()), end="\n\n")
            print(table(rows))
    except (InputError, msgspec.ValidationError) as problem:
        sys.exit(f"rounds.py: {problem}")


if __name__ == "__main__":
    main()
