"""A small policy with matched credit against one of twice the parameters with the outcome alone, same rollouts.

    python scripts/train_pico.py tokenizer --out build/pico
    python scripts/train_pico.py base --out build/pico --checkpoints 1500 2000         # a million parameters
    mkdir build/pico-2m && cp -r build/pico/tokenizer build/pico-2m/
    python scripts/train_pico.py base --out build/pico-2m --hidden 184 --checkpoints 1500 2000    # two million
    python benchmarks/small_beats_large.py              # an overnight job on two cores; go on with the same command
    python benchmarks/small_beats_large.py --report     # table and picture from the results file, nothing is run

Both are trained on the same tokens in the same order and stopped at the same step; then RL on the same long tasks with
the same rollouts (learning_curves/runs.py). Every finished run is a line in benchmarks/results/small_beats_large.jsonl.
The page is docs/learning.md.
"""

from __future__ import annotations

import argparse
import functools
import os
from pathlib import Path
from typing import Any

if __name__ in ("__main__", "__mp_main__"):
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in every job

from learning import HERE, HOPS, report
from learning_curves.runs import Base, train_once
from learning_curves.schedule import Job, missing, read_results, run_all

from rewright.errors import InputError

RESULTS = HERE / "results" / "small_beats_large.jsonl"
STARTS = {"1500 steps": "pico-late-1500", "2000 steps": "pico-late-2000", "3000 steps": "pico-late"}
"""How long both policies were trained, and the folder of that checkpoint."""
CONTESTANTS = {
    "2M outcome": ("large", "outcome"),
    "1M matchtir-hard": ("small", "matchtir-hard"),
    "1M fixed_horizon": ("small", "fixed_horizon"),
    "1M outcome": ("small", "outcome"),
}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Matched credit on pico against the outcome alone on twice its size.")
    parser.add_argument("--small", type=Path, default=Path("build/pico"), help="checkpoints of pico")
    parser.add_argument("--large", type=Path, default=Path("build/pico-2m"), help="checkpoints of twice the parameters")
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=["2000 steps"])
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--steps", type=int, default=80, help="of 64 rollouts")
    parser.add_argument("--held-out", type=int, default=300, help="tasks asked at the end of each run")
    parser.add_argument("--jobs", type=int, default=2, help="processes, one core each")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="print the table, draw the picture, run nothing")
    parser.add_argument("--quick", action="store_true", help="two contestants, one seed, 24 steps: about ten minutes")
    options = parser.parse_args()
    if options.quick:
        options.contestants, options.seeds, options.steps, options.held_out = list(CONTESTANTS)[:2], 1, 24, 150
    return options


def work(job: Job, *, options: argparse.Namespace) -> dict[str, Any]:
    """One job, in a process of its own. Its row is named by the start and the contestant."""
    size, method = CONTESTANTS[job.method]
    base = Base(job.base, STARTS[job.base], HOPS)
    checkpoints = options.small if size == "small" else options.large
    row = train_once(base, method, job.seed, job.steps, checkpoints=checkpoints, held_out=options.held_out)
    return {**row, "method": job.method}


def main() -> None:
    """Run what is missing, then report."""
    options = parse()
    try:
        if not options.report:
            jobs = [
                Job(start, contestant, seed, options.steps)
                for seed in range(options.seeds)
                for start in options.starts
                for contestant in options.contestants
            ]
            left = missing(jobs, read_results(options.results))
            run_all(left, functools.partial(work, options=options), options.results, processes=options.jobs)
        report(options.results, reference="2M outcome")
    except InputError as problem:
        raise SystemExit(f"small_beats_large.py: {problem}") from None


if __name__ == "__main__":
    main()
