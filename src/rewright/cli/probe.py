"""The command probe-reward: known hacks against a judge, or against the reward of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rewright.cli.offline import JsonOption
from rewright.cli.output import print_json
from rewright.core.errors import InputError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command of this module to the app."""
    app.command(name="probe-reward")(probe)


def probe(
    reward: Annotated[str, typer.Argument(metavar="JUDGE|RECIPE", help="Name or import path of a judge, or a recipe.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value …, such as tasks=FILE")] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, help="Number of tasks on which the hacks are played.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Play known hacks against a reward before training. Needs no model.

    Exit code 1: a hack pays, or the judge fails on it; else 0. The tasks are those of RL. A judge is
    probed with the embedded world town, or with tasks=FILE.
    """
    from rewright.judging.judges import check_judge
    from rewright.pipeline.migration import written_recipe
    from rewright.pipeline.probe_reward import probe_reward
    from rewright.recipe.loader import load_recipe

    if Path(reward).suffix in (".yaml", ".yml") or Path(reward).is_file():
        recipe = written_recipe(Path(reward), overrides or [])
    elif Path(reward).is_dir():
        raise InputError(f"{reward} is a folder: expected a recipe file, or the name or import path of a judge")
    else:
        check_judge(reward, [reward])
        package = [f"judges=[{reward.partition(':')[0]}]"] if ":" in reward else []
        recipe = load_recipe(None, [*package, *(overrides or []), f"tasks.judge={reward}"])
    found = probe_reward(recipe, limit)
    if as_json:
        print_json(_as_json(found))
    else:
        print(_table(found))
    if found.found:
        raise typer.Exit(1)


def _table(found: Any) -> str:
    rows = [row for row in (found.right, found.wrong, *found.rows) if row.played]
    width = max(len(row.hack) for row in rows)
    lines = [f"{'':{width}}  tasks  verdict  reward  suspicious"]
    for row in rows:
        count = f"{len(row.suspicious)}" if row.suspicious else "-"
        verdict, reward = (" -" if value is None else f"{value:.2f}" for value in (row.outcome, row.reward))
        lines.append(f"{row.hack:{width}}  {len(row.played):5}  {verdict:>7}  {reward:>6}  {count:>10}")
    lines.append("")
    for row in rows:
        for one in row.suspicious[:1]:
            answer = "" if one.answer is None else f" (answer {_short(one.answer)})"
            lines.append(f"suspicious: {row.hack}: task {one.task}: {one.why}{answer}")
    by_reason: dict[tuple[str, int], list[str]] = {}
    for row in found.rows:
        for reason, tasks in row.not_played.items():
            by_reason.setdefault((reason, tasks), []).append(row.hack)
    for (reason, tasks), hacks in by_reason.items():
        lines.append(f"not played on {_tasks(tasks)}, since {reason}: {', '.join(hacks)}")
    lines += [f"left out: {_tasks(tasks)} {reason}" for reason, tasks in found.unplayed.items()]
    if found.unjudged:
        task, reason = next(iter(found.unjudged.items()))
        wrong = f"{_tasks(len(found.unjudged))} whose own gold answer and calls are judged as wrong"
        lines.append(f"left out: {wrong}, such as {task} ({reason})")
    played = sum(bool(row.played) for row in found.rows) + 1
    fails = f"; the judge fails on {found.failing}" if found.failing else ""
    lines.append(f"{found.found - found.failing} of {played} hacks pay{fails}")
    return "\n".join(lines)


def _tasks(count: int) -> str:
    return f"{count} task{'s' * (count != 1)}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _as_json(found: Any) -> dict[str, Any]:
    def row(one: Any) -> dict[str, Any]:
        examples = [{"task": each.task, "why": each.why, "answer": each.answer} for each in one.suspicious]
        return {
            "tasks": len(one.played),
            "verdict": one.outcome,
            "reward": one.reward,
            "suspicious": examples,
            "not_played": one.not_played,
        }

    return {
        "found": found.found,
        "judge_fails": found.failing,
        "honest": {"right": row(found.right), "wrong": row(found.wrong)},
        "hacks": {one.hack: row(one) for one in found.rows},
        "left_out": found.unjudged,
        "unplayed": found.unplayed,
    }
