"""The command `rewright audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from rewright.cli.offline import (
    JsonOption,
    JudgeOption,
    RewardModelOption,
    ScorerOption,
    TrustedOption,
    model_changes,
)
from rewright.cli.output import as_text, print_json, stdout_for_json
from rewright.cli.registered import names_of
from rewright.core.errors import InputError
from rewright.core.progress import say

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(audit)


def audit(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    *,
    signal: Annotated[
        list[str] | None,
        typer.Option(
            "--signal",
            help=f"Credit signal{names_of('signal')}, an import path, or '{{name: branch, k: 4}}'. Repeatable.",
        ),
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(help="Whose trajectories: eval-rl, eval-sft, synth, eval-base… (default: the newest policy's)."),
    ] = None,
    turns: Annotated[int, typer.Option(min=1, help="Number of audited turns.")] = 600,
    k: Annotated[int, typer.Option(min=1, help="Distinct alternatives of each turn.")] = 4,
    repeat: Annotated[int, typer.Option(min=1, help="Continuations after each alternative.")] = 2,
    factual: Annotated[int, typer.Option(min=2, help="Continuations after the turn as it was.")] = 8,
    alternatives: Annotated[
        Literal["distinct", "policy"],
        typer.Option(help="Turns that do something else, or whatever the policy writes in their place."),
    ] = "distinct",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the plan and of all continuations.")] = 0,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="Temperature of the continuations (default: that of the stage).")
    ] = None,
    last_turns: Annotated[
        bool, typer.Option("--last-turns/--no-last-turns", help="Whether the last turn of a trajectory is audited.")
    ] = True,
    budget: Annotated[int | None, typer.Option(min=1, help="Largest number of generations.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the audit that these options began.")] = False,
    siblings: Annotated[
        bool,
        typer.Option(
            "--siblings", help="Correlate with outcomes of siblings instead: generates nothing, needs no model."
        ),
    ] = False,
    scorer: ScorerOption = None,
    judge: JudgeOption = None,
    reward_model: RewardModelOption = None,
    out: Annotated[Path | None, typer.Option(help="Draw the result to this .svg or .png file.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Number of continuations at once.")] = 64,
    trusted: TrustedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Audit credit signals against measured effects: other turns of the policy are tried in the same state.

    Each planned turn is replaced by k alternatives, and all are continued from the restored state. The cost is printed
    first. The rows random, index, log-prob and outcome are always in the table.
    """
    from rewright.audit.report import as_json as plain
    from rewright.audit.report import as_text as table_of
    from rewright.audit.report import drawing_of, siblings_as_json, siblings_as_text
    from rewright.audit.run import AuditOptions
    from rewright.audit.run import audit as audited
    from rewright.audit.signals import ALWAYS, read_signal, signal_name
    from rewright.pipeline.run_directory import Run

    choices = [read_signal(text) for text in signal or ()]
    names = [signal_name(choice) for choice in choices]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise InputError(f"--signal {double} is given twice")
    if out is not None and out.suffix.lower() not in (".svg", ".png"):
        raise InputError(f"{out}: unknown kind of picture, expected .svg or .png")
    given = {"scorer": scorer, "judge": judge, "reward_model": reward_model}
    models = [f"signals.{change}" for key, value in given.items() if value for change in model_changes(key, value)]
    line = as_text(as_json)
    opened = Run.open(run, trusted=trusted or ())
    opened.check_code()
    if siblings:
        from rewright.audit.sibling_rows import sibling_rows

        if out is not None:
            raise InputError("--out draws the result of an audit: expected no --siblings")
        if models:
            raise InputError("--siblings compares signals that need no model: expected no model")
        with stdout_for_json(as_json):
            rows = sibling_rows(run, opened.recipe(), choices or ["matched"], stage=stage, seed=seed)
        for text in siblings_as_text(rows):
            line(text)
        if as_json:
            print_json({"signals": siblings_as_json(rows)})
        return
    options = AuditOptions(
        signals=[choice for choice, name in zip(choices, names, strict=True) if name not in ALWAYS],
        stage=stage,
        turns=turns,
        k=k,
        repeat=repeat,
        factual=factual,
        alternatives=alternatives,
        seed=seed,
        temperature=temperature,
        last=last_turns,
        budget=budget,
        resume=resume,
        concurrency=concurrency,
        models=models,
    )
    with opened.locked(), stdout_for_json(as_json):
        result = audited(opened, options)
        found = plain(result)
        (result.folder / "result.json").write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    for text in table_of(result):
        line(text)
    if out is not None:
        drawing_of(result).save(out)
        say(f"written: {out}")
    say(f"the audit is in {result.folder}")
    if as_json:
        print_json(found)
