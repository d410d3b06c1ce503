"""The command view."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from rewright.cli.offline import JsonOption, TrustedOption
from rewright.cli.output import print_json
from rewright.core.errors import InputError
from rewright.core.progress import say

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module to the app."""
    app.command()(view)


def view(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories; two or more are compared.")],
    static: Annotated[
        Path | None,
        typer.Option("--static", "--out", help="Write one HTML file to share, and do not serve.", metavar="FILE"),
    ] = None,
    *,
    examples: Annotated[
        int | None, typer.Option(help="With --static: maximum number of trajectories of each run (default: 200).")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port on this machine (default: any free one).")
    ] = None,
    trusted: TrustedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show runs in the browser: all trajectories with their credit, repairs, RL steps, results and curves.

    Serves on this machine until Ctrl-C and prints the address. With --static it writes a file instead.
    """
    from rewright.pipeline.run_directory import Run
    from rewright.viewer.shown_run import ShownRun

    if static is None and (examples is not None or as_json):
        raise InputError(f"{'--json' if as_json else '--examples'} needs --static FILE: without it the runs are served")
    if static is not None and port is not None:
        raise InputError("--port and --static: a file is not served: expected one of them")
    shown = [ShownRun(Run.open(run, trusted=trusted or ())) for run in runs]
    if static is None:
        from rewright.viewer.server import serve_runs

        asyncio.run(serve_runs(shown, port or 0))
        return
    from rewright.viewer.static_file import DEFAULT_EXAMPLES, write_static

    left_out = write_static(shown, static, examples=DEFAULT_EXAMPLES if examples is None else examples)
    for run, count in zip(shown, left_out, strict=True):
        if count:
            say(f"{run.name}: {count:,} of {len(run.index):,} trajectories are left out of the file (--examples)")
    if as_json:
        print_json({"page": str(static), "left_out": left_out})
    else:
        print(static)
