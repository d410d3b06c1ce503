"""`rewright audit RUN`: plan, replay, draw, compute the signals, compare."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rewright.audit.computed import SignalWork, check_missing, continues
from rewright.audit.draws import AuditFiles, Draws, SignalValues, content_of, effects_of, replay_all
from rewright.audit.plan import AuditPlan, make_plan, mean_tokens, read_plan, save_plan
from rewright.audit.signals import baselines, check_signal, covariates, scale_warning, signal_name
from rewright.audit.source import Source, open_source
from rewright.audit.table import Table, compare, few_tasks
from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.core.records import Task, Trajectory
from rewright.credit.choices import Choice, chosen_name, own_settings
from rewright.credit.resources import NEEDS, Resources, needed
from rewright.credit.signals import find_signal
from rewright.engines.base import Sampling
from rewright.judging.judges import judge_trajectory
from rewright.pipeline.context import Context
from rewright.pipeline.migration import stored_recipe
from rewright.pipeline.run_directory import Run
from rewright.pipeline.signal_resources import LazyResource, ResourceSources, lazy_resources
from rewright.pipeline.stages.policy import policy_of
from rewright.recipe.schema import Recipe
from rewright.rollout.branches import Branches
from rewright.rollout.budget import Budget
from rewright.rollout.replay import Replayer

__all__ = ["AuditOptions", "AuditResult", "audit"]

Array = NDArray[np.float64]

SUCCESS = (0.1, 0.9)
"""Range of the policy's success in which an audit is possible: elsewhere nearly all continuations end alike."""
FOLDER = "audits"
"""Folder of the audits in a run directory."""


class AuditOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command."""

    signals: Sequence[Choice] = ()
    stage: str | None = None
    turns: int = 600
    k: int = 4
    repeat: int = 2
    factual: int = 8
    alternatives: Literal["distinct", "policy"] = "distinct"
    seed: int = 0
    temperature: float | None = None
    last: bool = True
    budget: int | None = None
    resume: bool = False
    concurrency: int = 64
    models: Sequence[str] = ()
    """Overrides of the recipe's section `signals`, as `signals.scorer.path=…`."""


class AuditResult(NamedTuple):
    """What an audit found. `costs`: generated turns and tokens of the plan, and of each signal that generates."""

    plan: AuditPlan
    folder: Path
    table: Table
    defined: int
    undefined: Mapping[str, int]
    costs: Mapping[str, Mapping[str, float]]
    seconds: float


def audit(run: Run, options: AuditOptions) -> AuditResult:
    """Audit signals on the stored trajectories of a locked run.

    Raises InputError for a policy that succeeds too rarely or too often, a world that cannot be replayed, a signal that
    is unknown, fails or misses too many turns, a plan that exceeds the budget, an audit that exists (without
    `resume`) or does not (with it). Raises BudgetError if the budget does not suffice; what was drawn is stored.
    """
    started = time.monotonic()
    recipe = stored_recipe(run.path, options.models, trusted=run.trusted) if options.models else run.recipe()
    models = _models(run, recipe, options.signals)
    for choice in options.signals:
        check_signal(choice, recipe.rl.credit, replace(models, branch=_unused))
    context = Context(run, recipe)
    source = open_source(context, options.stage)
    low, high = SUCCESS
    if not low <= source.success <= high:
        raise InputError(
            f"{run.path}: the policy of {source.stage} succeeds in {100 * source.success:.1f}% of "
            f"{len(source.trajectories)} trajectories: expected {100 * low:.0f} to {100 * high:.0f}%, since elsewhere "
            "nearly all continuations end alike (--stage chooses another policy, --seed and tasks another difficulty)"
        )
    if options.temperature is not None:
        source = replace(source, temperature=options.temperature)
    if source.temperature == 0:
        raise InputError(
            f"{run.path}: {source.stage} was sampled at temperature 0, at which no alternative differs: expected "
            "--temperature"
        )
    plan = make_plan(
        source,
        turns=options.turns,
        k=options.k,
        repeat=options.repeat,
        factual=options.factual,
        alternatives=options.alternatives,
        seed=options.seed,
        model=str(source.trajectories[0].provenance.model),
        last=options.last,
    )
    folder = run.path / FOLDER / plan.folder
    _check_place(folder, plan, options)
    _say_cost(plan, source, options)
    try:
        table, defined, undefined, costs = _drawn(context, source, plan, folder, options, models=models)
    finally:
        for name in NEEDS:
            if isinstance(opened := getattr(models, name), LazyResource):
                opened.close()
    return AuditResult(plan, folder, table, defined, undefined, costs, time.monotonic() - started)


def _models(run: Run, recipe: Recipe, signals: Sequence[Choice]) -> Resources:
    """What the signals need besides continuations, not opened yet. Raises InputError for what is not there."""
    found: dict[str, Any] = {}
    for choice in signals:
        name = str(chosen_name(choice))
        try:
            wanted = [need for need in needed(find_signal(name)) if need != "branch" and need not in found]
        except ValueError as problem:
            raise problem if isinstance(problem, InputError) else InputError(f"--signal: {problem}") from None
        scores = recipe.signals.scorer is None and not {"log_prob", "tokenize"}.isdisjoint(wanted)
        # A named model is refused if it has another vocabulary than the policies of the run, which have one.
        policy = policy_of(run, recipe, "sft") if scores else recipe.model
        opened = lazy_resources(wanted, name, ResourceSources(recipe=recipe, run=run.path, policy=policy))
        found |= {need: getattr(opened, need) for need in wanted}
    return Resources(**found)


def _folders(run: Run, recipe: Recipe, models: Resources) -> dict[str, str]:
    """Where the models that score are, as far as signals need them. (Overrides name others by their paths.)"""
    found = {}
    if models.prefix_score is not None:
        found["prefix_score"] = recipe.signals.reward_model or str(run.model_folder("reward"))
    if models.log_prob is not None:
        found["log_prob"] = (recipe.signals.scorer or policy_of(run, recipe, "sft")).path
    return found


def _unused(*_: Any, **__: Any) -> list[float | None]:
    raise AssertionError("only its presence is checked")


def _check_place(folder: Path, plan: AuditPlan, options: AuditOptions) -> None:
    """Raise InputError if the audit was begun and is not to be resumed, or the other way round."""
    exists = (folder / "plan.json").exists()
    if exists and read_plan(folder) != plan:
        raise InputError(f"{folder}/plan.json is another plan: expected the one that these options give")
    if exists and not options.resume:
        raise InputError(f"{folder} has this audit already: expected --resume, which goes on with it")
    if not exists and options.resume:
        others = sorted(path.parent.name for path in folder.parent.glob("*/plan.json"))
        raise InputError(
            f"there is no audit {folder} to go on with (there is {', '.join(others) or 'none'}): expected the options "
            "that it was begun with, or no --resume"
        )


def _say_cost(plan: AuditPlan, source: Source, options: AuditOptions) -> None:
    """Print what the plan and the signals that continue trajectories cost. Raises InputError above the budget."""
    if not plan.turns:
        raise InputError(f"{source.stage}: no turn can be audited: expected trajectories with more than one turn")
    tokens, budget = mean_tokens(source.trajectories), options.budget
    more = sum(_branch_cost(plan, choice) for choice in options.signals)
    total = plan.generations + more
    about = "" if tokens is None else f", {tokens * total:,.0f} tokens"
    parts = "" if not more else f" ({plan.generations:,} for the effects, {more:,} for the signal branch)"
    tasks = len({one.task for one in plan.turns})
    say(
        f"audit of {len(plan.turns)} turns of {tasks} tasks ({source.stage}, success {100 * plan.success:.1f}%): "
        f"about {total:,} generations{about}{parts}"
    )
    if len(plan.turns) < plan.asked:
        say(f"warning: {plan.asked} turns were asked for, and there are {len(plan.turns)}")
    if (warning := few_tasks(tasks)) is not None:
        say(warning)
    if budget is not None and total > budget:
        fit = int(len(plan.turns) * budget / total)
        raise InputError(
            f"--budget is {budget:,}, and the audit needs about {total:,} generations: expected --turns {fit} or "
            "fewer, or a larger budget"
        )


def _branch_cost(plan: AuditPlan, choice: Choice) -> int:
    """The expected number of turns that a signal generates which continues every state of the trajectories."""
    if not continues(choice):
        return 0
    count = int(own_settings("signal", choice).get("k", 1))
    lengths = {one.trajectory: one.turns for one in plan.turns}
    return sum(count * size * (size + 1) // 2 for size in lengths.values())


def _drawn(
    context: Context, source: Source, plan: AuditPlan, folder: Path, options: AuditOptions, *, models: Resources
) -> tuple[Table, int, dict[str, int], dict[str, dict[str, float]]]:
    stored = {one.id: one for one in source.trajectories}
    planned = [stored[identity] for identity in dict.fromkeys(one.trajectory for one in plan.turns)]
    tasks = [source.tasks[identity] for identity in dict.fromkeys(one.task for one in plan.turns)]
    sampling = Sampling(temperature=source.temperature, top_p=source.top_p)
    seconds, credit = context.recipe.judge_seconds, context.recipe.rl.credit
    named = [(signal_name(choice), choice) for choice in options.signals]

    def judge(task: Task, trajectory: Trajectory) -> float:
        return judge_trajectory(task, trajectory, seconds=seconds).outcome

    async def outcome(task: Task, trajectory: Trajectory) -> float:
        return await asyncio.to_thread(judge, task, trajectory)

    files = AuditFiles(folder)
    work = SignalWork(
        plan,
        source,
        files,
        credit=credit,
        resources=models,
        models=options.models,
        weights=_folders(context.run, context.recipe, models),
    )
    with asyncio.Runner() as runner:
        opened = AsyncExitStack()
        try:
            rollout = runner.run(opened.enter_async_context(context.rollout(source.model, sampling, tasks)))
            if plan.model and rollout.engine.name != plan.model:
                raise InputError(
                    f"{source.stage} was generated by {plan.model}, and the policy here is {rollout.engine.name}: "
                    "expected the same model, since continuations must be its own"
                )
            replayer = Replayer(rollout)
            exists = (folder / "plan.json").exists()
            replays = list(files.replays) if exists else []
            made_anew = next(
                (one for one in replays if one.content not in ("", content_of(stored[one.trajectory]))), None
            )
            if made_anew is not None:
                raise InputError(
                    f"{folder} was begun with another {made_anew.trajectory} than the run has now: its draws are of "
                    "trajectories that were made anew since: remove the folder to begin again"
                )
            if not exists:
                replaying = replay_all(replayer, planned, source.tasks.__getitem__, concurrency=options.concurrency)
                replays = runner.run(replaying)
            # Before anything is generated, so that a signal that fails costs nothing; while no event loop runs, so that
            # Ctrl-C ends the requests of a judge.
            bad = {one.trajectory for one in replays if one.problem is not None}
            found: dict[str, SignalValues] = {}
            for name, choice in named:
                if not continues(choice):
                    found[name] = work.values(choice)
                    if exists:
                        work.save()
            check_missing(_arrays(found), np.array([one.trajectory not in bad for one in plan.turns]))
            if not exists:
                files.create(replays)
                save_plan(folder, plan)
            work.save()
            budget = Budget(options.budget, files.spent)
            draws = Draws(
                plan,
                files,
                replayer,
                trajectories=stored.__getitem__,
                tasks=source.tasks.__getitem__,
                judge=judge,
                budget=budget,
                concurrency=options.concurrency,
            )
            runner.run(draws.run())
            effects, undefined = effects_of(plan, files)

            async def continued(choice: Choice) -> SignalValues:
                branches = Branches(replayer, stored, source.tasks, outcome, budget=budget, drawn=files.branches)
                return await asyncio.to_thread(work.values, choice, branches)

            for name, choice in named:
                if continues(choice):
                    found[name] = runner.run(continued(choice))
                    work.save()
            costs = {"plan": _plan_cost(files)}
            for name, _ in named:
                known = found[name]
                costs[name] = {"generations": known.generations, "tokens": known.tokens, "seconds": known.seconds}
        finally:
            files.close()
            runner.run(opened.aclose())
    defined = int((~np.isnan(effects.values)).sum())
    signals = _arrays({name: found[name] for name, _ in named})
    check_missing(signals, ~np.isnan(effects.values))
    for name, values in signals.items():
        if (warning := scale_warning(name, values)) is not None:
            say(warning)
    rows = {**signals, **baselines(plan, source, stored)}
    try:
        table = compare(
            rows,
            effects,
            tasks=[one.task for one in plan.turns],
            trajectories=[one.trajectory for one in plan.turns],
            covariates=covariates(plan, stored),
            seed=plan.seed,
        )
    except ValueError as problem:
        causes = ", ".join(f"{cause}: {number}" for cause, number in undefined.items())
        raise InputError(f"nothing can be compared: {problem} ({causes or 'no turn is undefined'})") from None
    return table, defined, undefined, costs


def _arrays(found: Mapping[str, SignalValues]) -> dict[str, Array]:
    return {name: one.array for name, one in found.items()}


def _plan_cost(files: AuditFiles) -> dict[str, float]:
    made = [*files.alternatives, *files.draws]
    return {"generations": sum(one.generations for one in made), "tokens": sum(one.tokens for one in made)}
