"""The option `--ray [ADDRESS]`, and the commands judge, score and credit over a folder of shards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from rewright.cli.output import print_json
from rewright.core.errors import InputError

if TYPE_CHECKING:
    from rewright.pipeline.sharded import ShardPass

__all__ = ["RayOption", "is_sharded_run", "print_pass", "redo_shards", "with_ray_address"]

RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Over a folder of shards: on Ray, at an address such as auto or host:6379 (default: on this machine).",
    ),
]
_ADDRESS: Final = re.compile(r"auto|local|ray://\S+|[\w.\-\[\]:]+:\d+")


def with_ray_address(arguments: Sequence[str]) -> list[str]:
    """Write `--ray` without an address as `--ray=local`: the library of the command line knows no optional values."""
    given = list(arguments)
    for place, (word, following) in enumerate(zip(given, [*given, ""][1:], strict=True)):
        if word == "--ray" and not _ADDRESS.fullmatch(following):
            given[place] = "--ray=local"
    return given


def is_sharded_run(run: Path, ray: str | None) -> bool:
    """Return True if the trajectories of a run are shards. Raises InputError for `--ray` if they are not."""
    from rewright.pipeline.sharded import TRAJECTORIES, has_shards

    sharded = has_shards(run)
    if ray is not None and not sharded:
        raise InputError(f"--ray: {run} has no folder {TRAJECTORIES} with .jsonl or .parquet shards")
    return sharded


def redo_shards(run: Any, verb: str, trusted: Sequence[str], ray: str | None, *, as_json: bool) -> None:
    """Judge or score the shards of a run that are not done."""
    from rewright.pipeline.sharded import PASSES

    if verb not in PASSES:
        raise InputError(f"{run.path}: its trajectories are shards, which {verb} does not read: {', '.join(PASSES)} do")
    work = PASSES[verb](run.path, trusted)
    work.prepare()
    print_pass(work, ray, as_json=as_json)


def print_pass(work: ShardPass, ray: str | None, *, as_json: bool) -> None:
    """Run a pass and print its numbers."""
    from rewright.pipeline.sharded import run_pass

    found = run_pass(work, ray=ray)
    if as_json:
        print_json(found)
        return
    print(", ".join(f"{value} {key.replace('_', ' ')}" for key, value in found.items()))
    print(f"written: {work.run / work.name}")
