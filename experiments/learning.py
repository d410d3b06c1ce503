"""Learning curves: does turn credit need fewer rollouts than the outcome alone, and from which start?

    python experiments/learning.py                       # hours on two cores; go on with the same command
    python experiments/learning.py --quick               # about ten minutes: two methods, one seed, short
    python experiments/learning.py --report              # table and picture from the results file, nothing is run
    python experiments/learning.py --inspect 5%          # which turns get which advantage at the start, by method

Every finished run (base, method, seed, length) is a line in experiments/results/learning.jsonl, which is only ever
appended to: stop whenever you like, add seeds or methods later. The order puts one seed of everything first.

The bases are weak for a real reason: pico's demonstrations were of one or two lookups in a row, hardly ever more, and
of caches that are right; the tasks here need three to six lookups, and half or more of what a cache says is wrong. What
each run does and measures is in learning_curves/runs.py; the page is docs/learning.md.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ in ("__main__", "__mp_main__"):
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in every job

from learning_curves.report import draw, table
from learning_curves.runs import METHODS, Base, profile_of, roll_out, train_once
from learning_curves.schedule import Job, missing, read_results, run_all

from rewright.core.errors import InputError

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "learning.jsonl"
BASES = {
    "4%": Base("4%", {5: 0.5, 6: 0.5}, outdated=0.7),
    "5%": Base("5%", {4: 1.0}, outdated=0.9),
    "20%": Base("20%", {3: 1.0}, outdated=0.5),
}
DEFAULT_METHODS = ("outcome", "matchtir-hard", "fixed_horizon", "matchtir-soft", "rewright")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Learning curves of outcome-only GRPO and of turn credit.")
    parser.add_argument("--bases", nargs="+", choices=BASES, default=list(BASES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(DEFAULT_METHODS))
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--steps", type=int, default=30, help="of 64 rollouts")
    parser.add_argument("--held-out", type=int, default=300, help="tasks asked at the end of each run")
    parser.add_argument("--jobs", type=int, default=2, help="processes, one core each")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--rewards", type=Path, default=Path("build/learning"), help="where reward models are kept")
    parser.add_argument("--report", action="store_true", help="print the table, draw the picture, run nothing")
    parser.add_argument("--inspect", choices=BASES, help="print the turn advantages of a base's rollouts")
    parser.add_argument("--groups", type=int, default=128, help="--inspect: groups of 8 rollouts")
    parser.add_argument("--quick", action="store_true", help="base 5%%, two methods, one seed, 15 steps")
    options = parser.parse_args(arguments)
    if options.quick:
        options.bases, options.methods, options.seeds, options.steps = ["5%"], ["outcome", "matchtir-hard"], 1, 15
        options.held_out = 150
    return options


def work(job: Job, *, options: argparse.Namespace) -> dict[str, Any]:
    """One job, in a process of its own."""
    base = BASES[job.base]
    reward_model = None
    if METHODS[job.method].reward_model:
        from learning_curves.reward import reward_model_of

        prefixes = METHODS[job.method].signal == "model"
        folder = options.rewards / f"{'prefixes' if prefixes else 'reward'}-{base.name.rstrip('%')}"
        reward_model = reward_model_of(base, folder, prefixes=prefixes)
    return train_once(base, job.method, job.seed, job.steps, held_out=options.held_out, reward_model=reward_model)


def inspect(base: Base, options: argparse.Namespace) -> None:
    """Print where the first step's advantages would go."""
    from learning_curves.turns import turn_table

    from rewright.engines.embedded import HFSettings
    from rewright.tasks.worlds.town import generate

    tasks = list(generate("long", options.groups, seed=999, profile=profile_of(base)))
    policy = HFSettings(path=base.model, slots=64)
    trajectories = roll_out(policy, tasks, rollouts=8)
    # The other signals need a model beside the rollouts.
    methods = [name for name, method in METHODS.items() if method.signal == "matched"]
    print(turn_table([task for task in tasks for _ in range(8)], trajectories, methods))


def report(results: Path, reference: str = "outcome") -> None:
    """Print the table and draw the picture beside the results file."""
    rows = read_results(results)
    if not rows:
        print(f"{results}: no finished run yet")
        return
    print(table(rows, reference))
    draw(rows, results.with_suffix(".png"))
    print(f"picture: {results.with_suffix('.png')}", file=sys.stderr)


def main() -> None:
    """Run what is missing, then report."""
    options = parse()
    try:
        if options.inspect:
            inspect(BASES[options.inspect], options)
            return
        if not options.report:
            jobs = [
                Job(base, method, seed, options.steps)
                for seed in range(options.seeds)
                for base in options.bases
                for method in options.methods
            ]
            left = missing(jobs, read_results(options.results))
            run_all(left, functools.partial(work, options=options), options.results, processes=options.jobs)
        report(options.results)
    except InputError as problem:
        raise SystemExit(f"learning.py: {problem}") from None


if __name__ == "__main__":
    main()
