"""Work on the shards of a folder: in forked processes of this machine, or on Ray.

A shard is finished or not begun: the work writes its results atomically, so an interrupted pass goes on with the shards
that are left. Both ways call one and the same function on each shard.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Final, TypeVar

from rewright.core.errors import InputError, RewrightError, WorkerError
from rewright.workers.ordered import in_order

__all__ = ["LOCAL_RAY", "on_shards"]

R = TypeVar("R")

LOCAL_RAY: Final = "local"
"""Address with which Ray is started on this machine, for this pass."""


def on_shards(
    work: Callable[[str], R], names: Sequence[str], *, processes: int, ray: str | None = None
) -> Generator[tuple[str, R]]:
    """Yield (name, `work(name)`) of each shard as it is finished.

    Args:
        work: works on the shard of a name. For Ray it is pickled, and the results are.
        names: the shards.
        processes: number of processes on this machine.
        ray: address of a Ray cluster, or `LOCAL_RAY`; None: without Ray.

    Raises what `work` raises, after the results that came before; WorkerError for a process that died; InputError if
    Ray is not installed or does not answer.
    """
    if ray is not None:
        yield from _on_ray(work, names, ray)
        return

    def one(name: str) -> Iterator[tuple[str, R]]:
        yield name, work(name)

    yield from in_order(one, names, processes=min(processes, len(names)))


class _Worker:
    """An actor of Ray Data: one for each process, so what `work` has read is kept for the next shard."""

    def __init__(self, work: bytes) -> None:
        self._work = pickle.loads(work)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        name = row["item"]
        try:
            result = (name, self._work(name), None)
        except RewrightError as problem:  # one line: raised again where the command runs
            result = (name, None, problem)
        return {"result": pickle.dumps(result)}


def _on_ray(work: Callable[[str], R], names: Sequence[str], address: str) -> Generator[tuple[str, R]]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise InputError("--ray needs Ray: pip install 'rewright[ray]'") from None
    logging.getLogger("ray").setLevel(logging.ERROR)
    started = not ray.is_initialized()
    if started:
        options: dict[str, Any] = {"include_dashboard": False} if address == LOCAL_RAY else {}
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, ValueError, RuntimeError) as problem:
            line = " ".join(str(problem).split())[:200]
            raise InputError(f"--ray {address}: Ray does not answer: {line}") from None
    try:
        data = ray.data.DataContext.get_current()
        data.enable_progress_bars = False
        data.verbose_stats_logs = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        shards = ray.data.from_items(list(names), override_num_blocks=len(names))
        size = max(1, min(len(names), int(ray.cluster_resources().get("CPU", 1))))
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=size)
        done = shards.map(_Worker, fn_constructor_args=(pickle.dumps(work),), compute=pool)
        for row in done.iter_rows():
            name, result, problem = pickle.loads(row["result"])
            if problem is not None:
                raise problem
            yield name, result
    except ray.exceptions.RayError as problem:
        line = " ".join(str(problem).split())[-300:]
        raise WorkerError(f"--ray {address}: {type(problem).__name__}: {line}") from None
    finally:
        if started:
            ray.shutdown()
