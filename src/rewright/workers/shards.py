"""Work on the shards of a folder: in forked processes of this machine, or on Ray.

A shard is finished or not begun: the work writes its results atomically, so an interrupted pass goes on with the shards
that are left. Both ways call one and the same function on each shard.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from rewright.core.errors import InputError, RewrightError, WorkerError
from rewright.workers.ordered import in_order

__all__ = ["LOCAL_RAY", "connected", "on_shards"]

R = TypeVar("R")

LOCAL_RAY: Final = "local"
"""Address with which Ray is started on this machine, for this command."""
_STARTS: Final = 3
"""How often Ray is started on a machine that is too busy for it."""


def on_shards(
    work: Callable[[str], R], names: Sequence[str], *, processes: int, ray: str | None = None
) -> Generator[tuple[str, R]]:
    """Yield (name, `work(name)`) of each shard as it is finished.

    Args:
        work: works on the shard of a name. For Ray it is pickled, and the results are.
        names: the shards.
        processes: number of processes on this machine.
        ray: address of Ray, within `connected(ray)`; None: without Ray.

    Raises what `work` raises, after the results that came before, and WorkerError for a process that died.
    """
    if ray is not None:
        yield from _on_ray(work, names, ray)
        return

    def one(name: str) -> Iterator[tuple[str, R]]:
        yield name, work(name)

    yield from in_order(one, names, processes=min(processes, len(names)))


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a Ray cluster, or start one on this machine (`LOCAL_RAY`), for the block. None: do nothing.

    Raises InputError if Ray is not installed or no cluster answers, and WorkerError if it cannot be started.
    """
    if address is None:
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise InputError("--ray needs Ray: pip install 'rewright[ray]'") from None
    options: dict[str, Any] = {"include_dashboard": False} if address == LOCAL_RAY else {}
    for attempt in range(1, _STARTS + 1):
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
            break
        except (ConnectionError, ValueError) as problem:
            raise InputError(f"--ray {address}: Ray does not answer: {_one_line(problem)}") from None
        except Exception as problem:  # Ray raises Exception itself: its processes did not start within 30 s
            ray.shutdown()
            if attempt == _STARTS:
                raise WorkerError(f"--ray {address}: Ray does not start: {_one_line(problem)}") from None
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        yield
    finally:
        ray.shutdown()


def _on_ray(work: Callable[[str], R], names: Sequence[str], address: str) -> Generator[tuple[str, R]]:
    import ray
    import ray.data

    shards = ray.data.from_items(list(names), override_num_blocks=len(names))
    size = max(1, min(len(names), int(ray.cluster_resources().get("CPU", 1))))
    done = shards.map(_actor(pickle.dumps(work)), compute=ray.data.ActorPoolStrategy(min_size=1, max_size=size))
    try:
        for row in done.iter_rows():
            name, result, problem = pickle.loads(row["result"])
            if problem is not None:
                raise problem
            yield name, result
    except ray.exceptions.RayError as problem:
        raise WorkerError(f"--ray {address}: {type(problem).__name__}: {_one_line(problem)}") from None


def _actor(pickled: bytes) -> type[Any]:
    """The class of the actors, each a process: what `work` has read is kept for the next shard."""

    class Actor:
        def __init__(self) -> None:
            self.work = pickle.loads(pickled)

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            name = row["item"]
            try:
                return {"result": pickle.dumps((name, self.work(name), None))}
            except RewrightError as problem:  # one line: raised again where the command runs
                return {"result": pickle.dumps((name, None, problem))}

    return Actor


def _one_line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:300]
