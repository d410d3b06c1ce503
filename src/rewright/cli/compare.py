"""The command compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rewright.cli.offline import JsonOption
from rewright.cli.output import print_json
from rewright.core.errors import InputError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module to the app."""
    app.command(name="compare")(compare_runs)


def compare_runs(
    left: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    right: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory to compare with it.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Compare two runs: success of each stage with intervals, and the difference over the tasks of both."""
    from rewright.pipeline.run_directory import Run
    from rewright.reports.comparison import compare, comparison_table

    if left.resolve() == right.resolve():
        raise InputError(f"{left} and {right} are the same run: expected two runs")
    found = compare(Run.open(left), Run.open(right))
    if as_json:
        print_json(found)
    else:
        print(comparison_table(found))
