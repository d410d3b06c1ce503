"""Which turn signals tell the truth: audits of pico in two town worlds.

    python experiments/audit_town.py                 # hours on two cores; the same command continues after a stop
    python experiments/audit_town.py --quick         # minutes: few turns, to see that it works
    python experiments/audit_town.py --report        # tables from the results file, nothing is run
    python experiments/audit_town.py --signal 'pkg.module:function'     # further signals

A world is a run of the quickstart's recipe with its own tasks, with a reward model that is trained on prefixes too. The
first policy that succeeds in 10 to 90% of the held-out tasks is audited with every signal: pico as it ships, else after
SFT. The scorer of `likelihood` is pico after SFT. A finished audit (world,
seed, plan, signals) is a line of experiments/results/audit_town.jsonl, which is only appended to. One process per core:
`--worlds cached` and `--worlds long` at the same time. The page is docs/audit.md.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one process per core, before torch is imported

import msgspec
from learning_curves.schedule import append, read_results

from rewright.audit.report import as_json
from rewright.audit.run import FOLDER, SUCCESS, AuditOptions, AuditResult, audit
from rewright.audit.signals import read_signal, signal_name
from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.pipeline.run_directory import Run
from rewright.pipeline.runner import Pipeline
from rewright.recipe.loader import load_recipe
from rewright.recipe.schema import Recipe

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "audit_town.jsonl"
RECIPE = HERE.parent / "src" / "rewright" / "recipe" / "quickstart.yaml"
STAGES: Final = ("eval_base", "synth", "judge", "score", "repair", "build", "sft", "eval_sft", "reward")
WORLDS: Final[dict[str, tuple[str, ...]]] = {
    "cached": ("tasks.profile=cached", "eval.tasks.profile=cached"),
    "long": ("tasks.profile=long", "eval.tasks.profile=long", "limits.turns=9", "limits.trajectory_tokens=480"),
}
"""Chains of 2 or 3 lookups with caches that may be wrong, and chains of 5 or 6 lookups."""
SIGNALS: Final = (
    "matched",
    "likelihood",
    "{name: likelihood, form: prob}",
    "model",
    "{name: branch, k: 4}",
    "{name: branch, k: 4, form: outcome}",
)

Row = dict[str, Any]


def recipe_of(options: argparse.Namespace, world: str) -> Recipe:
    """The recipe of one world. The evaluation has two attempts at each task."""
    count, n = (60, 2) if options.quick else (400, 2)
    own = [f"seed={options.seed}", f"eval.n={n}", f"eval.tasks.count={count}", f"stages={json.dumps(list(STAGES))}"]
    own += [f"tasks.count={30 if options.quick else 300}", "eval.concurrency=64", "limits.tool_seconds=120"]
    own += [
        "reward.prefixes=true",
        "limits.trajectory_seconds=3600",
    ]  # a busy machine must not turn waiting into failures
    return load_recipe(RECIPE, [*own, *WORLDS[world], *options.set])


def finished(folder: Path, recipe: Recipe) -> Run:
    """A run of the recipe with all its stages done; one that was stopped goes on."""
    run = Run.create(folder, recipe, resume=(folder / "recipe.yaml").exists())
    with run.locked():
        Pipeline(run).run_all()
    return run


def success(run: Run, stage: str) -> float:
    """Success of an evaluation."""
    return float(next(row["success"] for row in run.metrics() if row["stage"] == stage))


def prepared(options: argparse.Namespace, world: str) -> tuple[Run, str]:
    """The run and the stage of the first policy that can be audited. Raises InputError if there is none."""
    low, high = SUCCESS
    name = f"{world}-quick" if options.quick else world
    run = finished(options.work / f"{name}-seed{options.seed}", recipe_of(options, world))
    for audited in ("eval-base", "eval-sft"):
        found = success(run, audited.replace("-", "_"))
        say(f"{world}: success of {audited} is {100 * found:.1f}%")
        if low <= found <= high:
            return run, audited
    raise InputError(f"{world}: no policy succeeds in {100 * low:.0f} to {100 * high:.0f}%")


def audited(options: argparse.Namespace, world: str) -> Row:
    """Audit one world; an audit that was stopped goes on."""
    run, stage = prepared(options, world)
    turns = 12 if options.quick else options.turns
    with run.locked():
        wanted = AuditOptions(
            signals=[read_signal(text) for text in signals_of(options)],
            stage=stage,
            turns=turns,
            k=options.k,
            repeat=options.repeat,
            factual=options.factual,
            alternatives=options.alternatives,
            seed=options.seed,
            budget=options.budget,
        )
        result = begun_or_resumed(run, wanted)
    return {**key_of(options, world), **as_json(result), "folder": f"{run.path.name}/{FOLDER}/{result.folder.name}"}


def begun_or_resumed(run: Run, wanted: AuditOptions) -> AuditResult:
    """Audit a locked run; an audit that was stopped goes on."""
    try:
        return audit(run, wanted)
    except InputError as problem:
        if "expected --resume" not in str(problem):
            raise
        return audit(run, msgspec.structs.replace(wanted, resume=True))


def signals_of(options: argparse.Namespace) -> list[str]:
    """The signals of this experiment and those of the command line."""
    return [*SIGNALS, *options.signal]


def key_of(options: argparse.Namespace, world: str) -> Row:
    """What identifies a line of the results."""
    plan = "quick" if options.quick else f"{options.turns}x({options.factual}+{options.k}x{options.repeat})"
    plan = f"{plan} {options.alternatives}"
    names = [signal_name(read_signal(text)) for text in signals_of(options)]
    return {"world": world, "run_seed": options.seed, "plan": plan, "audited": names, "set": options.set}


def report(rows: list[Row]) -> None:
    """Print a Markdown table for every line."""
    for row in rows:
        print(f"\n### {row['world']}, {row['stage']}, success {100 * row['success']:.1f}%, plan {row['plan']}\n")
        print(
            f"{row['turns']} turns of {row['tasks']} tasks, {row['defined']} of {row['planned']} defined, effect not "
            f"zero {100 * row['not_zero']:.1f}%, reliability {shown(row['reliability'])}\n"
        )
        print("| signal | rho [95%] | within | auc not 0 | auc harmful | partial | distinguishable |")
        print("|---|---|---|---|---|---|---|")
        for one in row["signals"]:
            cells = [
                one["signal"],
                interval(one["rho"]),
                shown(one["within"]["value"]),
                interval(one["auc_not_zero"]),
                interval(one["auc_harmful"]),
                interval(one["partial"]),
                "yes" if one["distinguishable"] else "no",
            ]
            print(f"| {' | '.join(cells)} |")
        best = row["ceiling"]
        cells = [shown(best[name]) for name in ("rho", "within", "auc_not_zero", "auc_harmful")]
        print(f"| (a perfect signal) | {' | '.join(cells)} | | |")


def shown(value: float | None) -> str:
    """A number, or a dash."""
    return "-" if value is None else f"{value:.2f}"


def interval(found: Row) -> str:
    """A number with its interval."""
    if found["value"] is None:
        return "-"
    return f"{shown(found['value'])} [{shown(found['low'])}, {shown(found['high'])}]"


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", choices=[*WORLDS], default=[*WORLDS])
    parser.add_argument("--signal", action="append", default=[], help="a further signal, as for rewright audit")
    parser.add_argument("--turns", type=int, default=600)
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--factual", type=int, default=8)
    parser.add_argument("--alternatives", choices=["distinct", "policy"], default="policy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=None)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings of the recipe")
    parser.add_argument("--work", type=Path, default=Path("runs") / "audit_town")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if not options.report:
        for world in options.worlds:
            wanted = key_of(options, world)
            if any(
                all(row.get(key) == value for key, value in wanted.items()) for row in read_results(options.results)
            ):
                continue
            try:
                row = audited(options, world)
            except InputError as problem:
                raise SystemExit(f"audit_town.py: {problem}") from None
            append(options.results, [json.loads(msgspec.json.encode(row))])
    report(read_results(options.results))


if __name__ == "__main__":
    main()
