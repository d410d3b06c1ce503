"""The command `rewright check-batch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rewright.cli.offline import JsonOption
from rewright.cli.output import as_text, print_json
from rewright.core.errors import InputError

__all__ = ["register"]

_SHOWN = 5
"""Findings of one check that are printed as text; `--json` has all."""


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(name="check-batch")(check_batch)


def check_batch(
    file: Annotated[Path, typer.Argument(help="Dump of a batch: .jsonl, .json, .parquet or .npz; or a run directory.")],
    *,
    layout: Annotated[
        Literal["rows", "verl", "trl", "skyrl", "rewright"] | None,
        typer.Option("--from", help="Whose names the keys are (default: detected)."),
    ] = None,
    group_size: Annotated[
        int | None, typer.Option(min=1, help="Rows without a group are groups of so many, in order.")
    ] = None,
    turn_start: Annotated[
        str | None, typer.Option(help="Token ids that open a turn of the model, such as 151644,77091,198.")
    ] = None,
    turn_end: Annotated[str | None, typer.Option(help="Token ids that close a turn, such as 151645.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a batch that a trainer is about to train on: masks, groups, rewards, advantages and log-probabilities.

    Exit code 0: nothing found, 1: something is wrong, 2: the file cannot be read.
    """
    if (turn_start is None) != (turn_end is None):
        raise InputError("--turn-start and --turn-end are given together")
    from rewright.credit.batch_checks import NotChecked, rows_read
    from rewright.credit.batch_checks import check_batch as made
    from rewright.reports.batch_files import read_batch

    read = read_batch(
        file,
        layout,
        group_size=group_size,
        turn_start=_token_ids("--turn-start", turn_start),
        turn_end=_token_ids("--turn-end", turn_end),
    )
    line = as_text(as_json)
    results = made(read.batch)
    found = {name: result for name, result in results.items() if not isinstance(result, NotChecked)}
    skipped = {name: result.reason for name, result in results.items() if isinstance(result, NotChecked)}
    counts = rows_read(read.batch).items()
    partly = {name: (few, all_) for name, (few, all_) in counts if found.get(name) == [] and few < all_}
    for name, findings in found.items():
        few, all_ = partly.get(name, (0, 0))
        rows = f" (could speak of {few} of {all_} rows)" if name in partly else ""
        line(f"{name}: {'ok' if not findings else f'{len(findings)} found'}{rows}")
        for one in findings[:_SHOWN]:
            token = "" if one.token is None else f", token {one.token}"
            line(f"  row {one.row}{token} ({one.place}): {one.what}; expected: {one.expected}")
        if len(findings) > _SHOWN:
            line(f"  and {len(findings) - _SHOWN} more: --json has all")
    for name, reason in skipped.items():
        line(f"{name}: not checked: {reason}")
    if read.ignored:
        line(f"keys that no check reads: {', '.join(read.ignored)}")
    if read.failed:
        line(f"left out: {read.failed} rollouts that failed before their prompt had token ids")
    count = sum(map(len, found.values()))
    line(f"{len(read.batch.rows)} rows ({read.layout}), {len(found)} checks made, {len(skipped)} not: {count} findings")
    if as_json:
        print_json(
            {
                "rows": len(read.batch.rows),
                "layout": read.layout,
                "findings": [one._asdict() for findings in found.values() for one in findings],
                "checked": list(found),
                "not_checked": skipped,
                "partly_checked": {name: {"rows": few, "of": all_} for name, (few, all_) in partly.items()},
                "ignored_keys": read.ignored,
                "failed_rollouts": read.failed,
            }
        )
    if count:
        raise typer.Exit(1)


def _token_ids(option: str, text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text is not None else ()
    except ValueError:
        raise InputError(f"{option} is {text!r}: expected token ids, such as 151644,77091,198") from None
