"""A small policy with matched credit against one of twice the parameters with the outcome alone, same rollouts.

    mkdir -p build/pico-2m && python scripts/train_pico.py tokenizer --out build/pico-2m
    python scripts/train_pico.py base --out build/pico-2m --hidden 184     # two million parameters, about an hour
    python scripts/train_pico.py caches --out build/pico-2m
    python experiments/small_beats_large.py              # hours on two cores; go on with the same command
    python experiments/small_beats_large.py --report     # table and picture from the results file, nothing is run

Both are trained on the same tokens in the same order and stopped at the same steps (the small one is the pico that
ships); then RL on the same long tasks with the same rollouts (learning_curves/runs.py). Every finished run is a line in
experiments/results/small_beats_large.jsonl; those of the small policy that experiments/learning.py has made are taken
over. The page is docs/learning.md.
"""

from __future__ import annotations

import argparse
import functools
import os
from pathlib import Path
from typing import Any

import msgspec

if __name__ in ("__main__", "__mp_main__"):
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in every job

from learning import BASES, HERE, report
from learning import RESULTS as LEARNED
from learning_curves.runs import train_once
from learning_curves.schedule import Job, append, job_of, missing, read_results, run_all

from rewright.core.errors import InputError

RESULTS = HERE / "results" / "small_beats_large.jsonl"
LARGE = "2M outcome"
SMALL = {"1M matchtir-hard": "matchtir-hard", "1M fixed_horizon": "fixed_horizon", "1M outcome": "outcome"}
CONTESTANTS = {LARGE: "outcome", **SMALL}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Matched credit on pico against the outcome alone on twice its size.")
    parser.add_argument("--large", default="build/pico-2m/pico", help="the policy of twice the parameters")
    parser.add_argument("--bases", nargs="+", choices=BASES, default=["5%"], help="the tasks, as in learning.py")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--steps", type=int, default=30, help="of 64 rollouts")
    parser.add_argument("--held-out", type=int, default=300, help="tasks asked at the end of each run")
    parser.add_argument("--jobs", type=int, default=2, help="processes, one core each")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="print the table, draw the picture, run nothing")
    parser.add_argument("--quick", action="store_true", help="two contestants, one seed, 15 steps: about ten minutes")
    options = parser.parse_args()
    if options.quick:
        options.contestants, options.seeds, options.steps, options.held_out = list(CONTESTANTS)[:2], 1, 15, 150
    return options


def work(job: Job, *, options: argparse.Namespace) -> dict[str, Any]:
    """One job, in a process of its own. Its row is named by the base and the contestant."""
    base = BASES[job.base]
    if job.method == LARGE:
        base = msgspec.structs.replace(base, model=options.large)
    row = train_once(base, CONTESTANTS[job.method], job.seed, job.steps, held_out=options.held_out)
    return {**row, "method": job.method}


def learned(held_out: int) -> list[dict[str, Any]]:
    """The runs of the small policy that learning.py has made: the same function with the same arguments."""
    names = {method: contestant for contestant, method in SMALL.items()}
    return [
        {**row, "method": names[row["method"]]}
        for row in read_results(LEARNED)
        if row["method"] in names and row["held_out_tasks"] == held_out
    ]


def main() -> None:
    """Run what is missing, then report."""
    options = parse()
    try:
        if not options.report:
            jobs = [
                Job(base, contestant, seed, options.steps)
                for seed in range(options.seeds)
                for base in options.bases
                for contestant in options.contestants
            ]
            left = missing(jobs, read_results(options.results))
            known = [row for row in learned(options.held_out) if job_of(row) in left]
            append(options.results, known)
            left = missing(left, known)
            run_all(left, functools.partial(work, options=options), options.results, processes=options.jobs)
        report(options.results, reference=LARGE)
    except InputError as problem:
        raise SystemExit(f"small_beats_large.py: {problem}") from None


if __name__ == "__main__":
    main()
