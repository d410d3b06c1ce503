"""What repair adds to SFT, and what the reward model adds to RL: AutoTraj's two ablations, on an embedded world.

    python experiments/autotraj_ablation.py                # five seeds; stop it and go on with the same command
    python experiments/autotraj_ablation.py --recipe recipes/smollm2-autotraj.yaml --seeds 1 \\
        --runs build/autotraj-smollm2 --results build/autotraj-smollm2/results.jsonl    # on real functions
    python experiments/autotraj_ablation.py --report       # table and picture from the results file, nothing is run

A seed has its own tasks, candidates, repairs and pairs; then its arms, all evaluated on the same held-out tasks:

    kept                SFT on what was kept                       kept, same steps   the same, as long as kept+repaired
    kept+repaired       SFT on kept and repaired trajectories
    outcome+format      RL from kept+repaired                      +reward model      the same with the reward model

Every finished arm is a line in experiments/results/autotraj_ablation.jsonl, which is only ever appended to. Differences
are taken within a seed; intervals are Student's, 95%. The page is docs/ablation.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")  # before torch is imported

import msgspec
import numpy as np
from learning_curves.estimates import estimate, shown
from learning_curves.schedule import read_results

from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.pipeline.run_directory import Run
from rewright.pipeline.runner import Pipeline
from rewright.recipe.loader import load_recipe
from rewright.recipe.schema import Recipe
from rewright.repair.quality import score_trajectory, word_count

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "autotraj_ablation.jsonl"
RECIPE = HERE.parent / "recipes" / "autotraj.yaml"
DATA: Final = ("eval_base", "synth", "judge", "score", "repair", "build")
ARMS: Final = ("base", "kept", "kept, same steps", "kept+repaired", "outcome+format", "+reward model")
COMPARED: Final = (
    ("kept+repaired", "kept"),
    ("kept+repaired", "kept, same steps"),
    ("outcome+format", "kept+repaired"),
    ("+reward model", "outcome+format"),
)

Row = dict[str, Any]


def recipe_of(options: argparse.Namespace, seed: int, stages: Sequence[str], *more: str) -> Recipe:
    """The recipe of one seed: its own tasks (of a file all seeds have the same), the same held-out ones."""
    own = [f"seed={seed}", f"stages={json.dumps(list(stages))}"]
    if load_recipe(options.recipe, options.set).tasks.path is None:  # a world, which draws its tasks
        own.append(f"tasks.seed={seed}")
    return load_recipe(options.recipe, [*own, *options.set, *more])


def done(folder: Path, recipe: Recipe, prepare: Callable[[Run], None] | None = None) -> Run:
    """A run of the recipe with all its stages done; one that was stopped goes on."""
    run = Run.create(folder, recipe, resume=(folder / "recipe.yaml").exists())
    with run.locked():
        if prepare is not None and not run.state():
            prepare(run)
        Pipeline(run).run_all()
    return run


def data_of(options: argparse.Namespace, seed: int) -> Run:
    """Candidates, repairs and both sets."""
    return done(options.runs / f"seed-{seed}", recipe_of(options, seed, DATA))


def sft_arm(options: argparse.Namespace, seed: int, arm: str) -> Run:
    """SFT on the rows of the arm. `reward` comes with kept+repaired: RL starts from both."""
    data = data_of(options, seed)
    rows = data.read_lines("sft.jsonl")
    kept = [row for row in rows if row["kind"] == "kept"]
    if not kept:
        raise InputError(f"{data.path}: no trajectory was kept, so there is nothing to compare: choose a better model")
    stages, more = ["sft", "eval_sft"], list[str]()
    if arm == "kept, same steps":
        more = [f"sft.epochs={recipe_of(options, seed, stages).sft.epochs * len(rows) / len(kept)}"]
    elif arm == "kept+repaired":
        stages.append("reward")
    chosen = rows if arm == "kept+repaired" else kept

    def prepare(run: Run) -> None:
        run.write_lines("sft.jsonl", chosen)
        run.write_lines("preferences.jsonl", data.read_lines("preferences.jsonl"))

    return done(folder_of(options, seed, arm), recipe_of(options, seed, stages, *more), prepare)


def rl_arm(options: argparse.Namespace, seed: int, arm: str) -> Run:
    """RL from the SFT model of kept+repaired, with its reward model or without."""
    start = sft_arm(options, seed, "kept+repaired")

    def prepare(run: Run) -> None:
        stages = ["sft", "reward"] if arm == "+reward model" else ["sft"]
        for stage in stages:
            shutil.copytree(start.model_folder(stage), run.model_folder(stage), dirs_exist_ok=True)
        run.write_json("state.json", {stage: start.state()[stage] for stage in stages})

    recipe = recipe_of(options, seed, ["rl", "eval_rl"], "rl.keep_rollouts=false")
    return done(folder_of(options, seed, arm), recipe, prepare)


def folder_of(options: argparse.Namespace, seed: int, arm: str) -> Path:
    """Where an arm's run stands."""
    name = arm.replace(", ", "-").replace(" ", "-").replace("+", "-and-").strip("-")
    return Path(options.runs / f"seed-{seed}-{name}")


def one_arm(options: argparse.Namespace, seed: int, arm: str) -> Row:
    """Run an arm and measure it."""
    if arm == "base":
        run, label = data_of(options, seed), "base"
    elif arm in ("outcome+format", "+reward model"):
        run, label = rl_arm(options, seed, arm), "rl"
    else:
        run, label = sft_arm(options, seed, arm), "sft"
    metrics = next(row for row in run.read_lines("metrics.jsonl") if row["stage"] == f"eval_{label}")
    trajectories = list(run.evaluation(label)[0])
    words = [word_count(one) for one in trajectories]
    settings = run.recipe().quality
    totals = [score_trajectory(one, count, settings).total for one, count in zip(trajectories, words, strict=True)]
    state = run.state()
    return {
        "arm": arm,
        "seed": seed,
        "success": metrics["success"],
        "tasks": metrics["tasks"],
        "words": float(np.mean(words)),
        "quality": float(np.mean(totals)),
        "rows": len(run.read_lines("sft.jsonl")) if label == "sft" else None,
        "reward_model_accuracy": state.get("reward", {}).get("accuracies", {}).get("accuracy"),
        "seconds": round(sum(float(row["seconds"]) for name, row in state.items() if name in run.recipe().stages)),
    }


def by_arm(rows: Sequence[Row]) -> dict[str, dict[int, Row]]:
    """Rows by arm and seed."""
    found: dict[str, dict[int, Row]] = {arm: {} for arm in ARMS}
    for row in rows:
        found[row["arm"]][row["seed"]] = row
    return found


def table(rows: Sequence[Row]) -> str:
    """Markdown: the arms, then the differences within seeds."""
    found = by_arm(rows)
    lines = ["| arm | seeds | SFT rows | success, % | words | quality |", "|---|---|---|---|---|---|"]
    for arm, own in found.items():
        if own:
            row_counts = [row["rows"] for row in own.values() if row["rows"]]
            trained = f"{np.mean(row_counts):.0f}" if row_counts else "-"
            words, quality = (np.mean([row[key] for row in own.values()]) for key in ("words", "quality"))
            success = shown(estimate([row["success"] for row in own.values()]))
            lines.append(f"| {arm} | {len(own)} | {trained} | {success} | {words:.1f} | {quality:.3f} |")
    lines += ["", "| difference | seeds | success, points |", "|---|---|---|"]
    for better, worse in COMPARED:
        seeds = sorted(found[better].keys() & found[worse].keys())
        if seeds:
            gains = [found[better][seed]["success"] - found[worse][seed]["success"] for seed in seeds]
            lines.append(f"| {better} - {worse} | {len(seeds)} | {shown(estimate(gains), '+')} |")
    accuracies = [row["reward_model_accuracy"] for row in found["kept+repaired"].values()]
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    if known:
        lines += ["", f"reward model: {100 * float(np.mean(known)):.1f}% of the held-out pairs ranked right"]
    return "\n".join(lines)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Success by arm: every seed a dot, the mean with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = {arm: own for arm, own in by_arm(rows).items() if own}
    figure, axis = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    for place, own in enumerate(found.values()):
        success = [100 * row["success"] for row in own.values()]
        mean, half = estimate(success)
        axis.bar(place, mean, width=0.6, color="#93c5fd", yerr=half, capsize=4)
        axis.plot([place] * len(success), success, "o", color="#1e3a8a", markersize=3)
    axis.set_xticks(range(len(found)), list(found), fontsize=8)
    axis.set_ylabel("held-out success, %")
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="AutoTraj's ablations on an embedded world.")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--set", nargs="*", default=[], metavar="section.key=value", help="overrides of the recipe")
    parser.add_argument("--runs", type=Path, default=Path("build/autotraj-ablation"), help="where the runs are kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="print the table, draw the picture, run nothing")
    return parser.parse_args()


def main() -> None:
    """Run what is missing, then report."""
    options = parse()
    try:
        have = {(row["arm"], row["seed"]) for row in read_results(options.results)}
        jobs = [(arm, seed) for seed in range(options.seeds) for arm in ARMS if arm in options.arms]
        for arm, seed in [] if options.report else [job for job in jobs if job not in have]:
            row = one_arm(options, seed, arm)
            options.results.parent.mkdir(parents=True, exist_ok=True)
            with options.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            say(f"seed {seed} {arm}: success {100 * row['success']:.1f}%, {row['seconds']} s")
        rows = read_results(options.results)
        if not rows:
            raise InputError(f"{options.results}: no finished arm yet")
        print(table(rows))
        draw(rows, options.results.with_suffix(".png"))
        say(f"picture: {options.results.with_suffix('.png')}")
    except (InputError, msgspec.ValidationError) as problem:
        sys.exit(f"autotraj_ablation.py: {problem}")


if __name__ == "__main__":
    main()
