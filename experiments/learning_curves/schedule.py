"""Many runs, over days: which are missing, one process for each, one line in the results file as each finishes.

The file is only ever appended to. A run that was stopped in the middle left no line and is made again; one that stands
there is never made twice. Runs of another length (`steps`) are other runs.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rewright.core.progress import say

__all__ = ["Job", "append", "each_result", "job_of", "missing", "read_results", "run_all"]

Row = dict[str, Any]
J = TypeVar("J")
R = TypeVar("R")


class Job(NamedTuple):
    """What identifies a run."""

    base: str
    method: str
    seed: int
    steps: int


def read_results(path: Path) -> list[Row]:
    """The finished runs; a torn last line (the disk was full, the machine stopped) is dropped."""
    rows: list[Row] = []
    lines = path.read_text().splitlines() if path.exists() else []
    for number, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number + 1 < len(lines):
                raise SystemExit(f"{path}:{number + 1}: not a line of JSON") from None
    return rows


def job_of(row: Row) -> Job:
    """Which run a line is of."""
    return Job(row["base"], row["method"], row["seed"], row["steps"])


def missing(jobs: Sequence[Job], rows: Sequence[Row]) -> list[Job]:
    """The jobs without a line, in the order given."""
    done = {job_of(row) for row in rows}
    return [job for job in jobs if job not in done]


def append(results: Path, rows: Sequence[Row]) -> None:
    """Add lines; a torn last line is cut off first, so that they do not become part of it."""
    results.parent.mkdir(parents=True, exist_ok=True)
    _mend(results)
    with results.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def each_result(jobs: Sequence[J], work: Callable[[J], R], *, processes: int) -> Iterator[tuple[J, R, int]]:
    """Run the jobs in order, `processes` at a time, each in a process of its own.

    Yields each job with its result as it finishes, and the number of jobs that are left. After a job that fails no
    further one begins; its error is raised when those that are running have been yielded. A job ends with this process:
    its result would be lost.
    """
    waiting, running = list(jobs), dict[Future[R], J]()
    failure: BaseException | None = None
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, mp_context=context, max_tasks_per_child=1, initializer=_end_with_parent
    ) as pool:
        while waiting or running:
            while waiting and len(running) < processes:
                job = waiting.pop(0)
                running[pool.submit(work, job)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, problem = running.pop(future), future.exception()
                if problem is None:
                    yield job, future.result(), len(waiting) + len(running)
                    continue
                waiting.clear()
                failure = failure or problem
                say(f"{job}: {type(problem).__name__}: {problem}; {len(running)} other jobs are running to their end")
    if failure is not None:
        raise failure


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_all(jobs: Sequence[Job], work: Callable[[Job], Row], results: Path, *, processes: int) -> None:
    """Run the jobs (`each_result`), and append each row when it is there.

    An interrupt or a failed job ends it: what has finished stands in the file.
    """
    append(results, ())
    started = time.monotonic()
    for job, row, left in each_result(jobs, work, processes=processes):
        append(results, [row])
        say(
            f"{job.base} {job.method} seed {job.seed}: success {_mean(row['success'][-5:]):.3f} at the end, "
            f"{_mean(row['success']):.3f} over all, {row['held_out']:.3f} held out, {row['seconds']} s; "
            f"{left} to go after {(time.monotonic() - started) / 60:.0f} minutes"
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))


def _mend(path: Path) -> None:
    """Cut off a torn last line, so that the next row does not become part of it."""
    if not path.exists():
        return
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        path.write_bytes(data[: data.rfind(b"\n") + 1])
