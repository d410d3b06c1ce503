"""RL of the policy, with the reward model if its held-out accuracy is sufficient."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from rewright.core.errors import InputError
from rewright.core.progress import say
from rewright.core.records import Task, Trajectory
from rewright.core.scorer import Scorer
from rewright.credit.resources import Resources
from rewright.engines.settings import ModelSettings
from rewright.pipeline.context import Context
from rewright.pipeline.processes import trainer
from rewright.pipeline.registry import Stage
from rewright.pipeline.rounds import last_sets
from rewright.pipeline.signal_resources import ResourceSources, open_resources, resources_of
from rewright.pipeline.stages.policy import first_policy, policy_before
from rewright.pipeline.stages.reward_gate import connect, has_validated_reward_model, why_no_reward_model
from rewright.pipeline.task_checks import check_rl_tasks
from rewright.recipe.schema import Recipe
from rewright.rollout.rewards import call_factor
from rewright.tasks.from_recipe import drawn_count, draws_tasks, load_recipe_tasks
from rewright.tasks.licences import licence_warning
from rewright.training.backend import RLJob, check_training, get_backend
from rewright.training.group_credit import check_components, uses_reward_model
from rewright.training.launch import launch_of
from rewright.training.settings import check_task_count

__all__ = ["RL", "rl"]


def rl(context: Context) -> dict[str, Any]:
    """Train the SFT policy by RL. Writes models/rl and the rollouts to rollouts.jsonl."""
    run, recipe = context.run, context.recipe
    settings, model = recipe.reward, policy_before(context, "rl")
    if settings.url is not None and uses_reward_model(recipe.rl):
        from rewright.engines.loading import load_tokenizer
        from rewright.rendering.renderer import Renderer

        vocabulary = Renderer(load_tokenizer(model), context.dialect).fingerprint
        client, accuracies = connect(last_sets(run, context.recipe.repair.rounds), settings, vocabulary)
        with client:
            _train(context, model, client)
        return {"rollouts": recipe.rl.keep_rollouts, "accuracies": accuracies}
    reward_model: Scorer | None = None
    if not uses_reward_model(recipe.rl):
        if run.model_folder("reward").is_dir():
            say(f"rl: {why_no_reward_model(recipe.rl)}: RL runs without a reward model")
    elif has_validated_reward_model(run, settings):
        reward_model = trainer(context, "reward").load_reward_model(run.model_folder("reward"))
    _train(context, model, reward_model)
    return {"rollouts": recipe.rl.keep_rollouts}


def _train(context: Context, model: ModelSettings, reward_model: Scorer | None) -> None:
    recipe, run = context.recipe, context.run
    check_components(recipe.rl, reward_model=reward_model is not None)
    # Maps stored rollouts to whether they have credit. They lack it if the step's judge or reward model was lost.
    has_credit = (
        {trajectory.id: trajectory.credit is not None for trajectory in run.rollouts} if recipe.rl.keep_rollouts else {}
    )

    def keep(trajectories: list[Trajectory]) -> None:
        run.rollouts.replace(
            trajectory
            for trajectory in trajectories
            if trajectory.credit is not None and has_credit.get(trajectory.id) is False
        )
        for trajectory in trajectories:
            if trajectory.id not in has_credit:
                run.rollouts.append(trajectory)
            has_credit[trajectory.id] = trajectory.credit is not None or has_credit.get(trajectory.id, False)

    context.check_rewards()
    tasks = context.load(recipe.rl.tasks, "rl.tasks") if recipe.rl.tasks is not None else context.tasks
    if recipe.rl.tasks is not None and (warning := licence_warning(tasks)) is not None:
        say(f"rl: {warning}")
    uses_gold_calls = recipe.rl.credit.match_scale != 0 and call_factor(recipe.rl) != 0
    if uses_gold_calls and all(task.gold.calls is None for task in tasks):
        others = "only the outcome is" if recipe.rl.credit.rewards_matches else "the other signals are"
        say(f"rl: no task has gold calls: calls are not rewarded, {others}")
    asyncio.run(context.try_tools(tasks))
    sources = ResourceSources(recipe=recipe, run=run.path, policy=model)
    with ExitStack() as stack:
        if launch_of(recipe.training).is_group:
            resources = resources_of(recipe.rl.credit, sources)  # the main process of the group opens them
        else:
            # The trainer's own policy continues the rollouts of a step.
            resources = stack.enter_context(open_resources(recipe.rl.credit, sources, later=("branch",)))
        job = _job(
            context,
            model,
            tasks=tasks,
            reward_model=reward_model,
            resources=resources,
            on_rollouts=keep if recipe.rl.keep_rollouts else None,
        )
        history = trainer(context, "rl").train_rl(job)
    missing = sum(row.get("rewright/credit_missing") or 0 for row in history)
    if missing:
        count = recipe.rl.steps * recipe.rl.tasks_per_step * recipe.rl.generations
        what = "were left out of their groups" if recipe.rl.credit.missing == "leave_out" else "are bridged"
        name = recipe.rl.credit.signal_name
        say(f"rl: the signal {name} had no number for a turn of {missing:.0f} of {count} rollouts, which {what}")
    run.set_metrics("rl", history)


def _job(
    context: Context,
    model: ModelSettings,
    *,
    tasks: list[Task],
    reward_model: Scorer | None,
    resources: Resources | None,
    on_rollouts: Callable[[list[Trajectory]], None] | None,
) -> RLJob:
    recipe, run = context.recipe, context.run
    return RLJob(
        tasks=tasks,
        model=model,
        settings=recipe.rl,
        out=run.model_folder("rl"),
        seed=recipe.seed,
        dialect=context.dialect,
        tools=context.open_tools(),
        limits=recipe.limits,
        users=recipe.user,
        template_options=recipe.model.template_options,
        reward_model=reward_model,
        resources=resources,
        on_rollouts=on_rollouts,
        judge_seconds=recipe.judge_seconds,
        tool_settings=recipe.tools,
        sandbox=recipe.sandbox,
        judges=recipe.judges,
        ray=recipe.ray,
    )


def _check(recipe: Recipe) -> None:
    check_rl = getattr(get_backend(recipe.rl.backend, "rl.backend"), "check_rl", None)
    if check_rl is not None:
        check_rl(recipe.rl, recipe.limits, recipe.ray)
    check_training("rl", recipe.rl, first_policy(recipe), recipe.training)
    _check_pairs(recipe)
    check_task_count(_task_count(recipe), recipe.rl)


def _prepare(context: Context) -> None:
    """Check what the signals need and the estimator names, and the tasks."""
    recipe, run = context.recipe, context.run
    resources_of(recipe.rl.credit, ResourceSources(recipe=recipe, run=run.path, policy=recipe.model))
    trained = "reward" in recipe.stages or run.model_folder("reward").is_dir()
    has_model = uses_reward_model(recipe.rl) and (recipe.reward.url is not None or trained)
    check_components(recipe.rl, reward_model=has_model)
    check_rl_tasks(context)


def _check_pairs(recipe: Recipe) -> None:
    """Raise InputError if RL will refuse the model at `reward.url`, because no pair will be held out to test it."""
    served = recipe.reward.url is not None and uses_reward_model(recipe.rl)
    if served and "build" in recipe.stages and recipe.build.held_out_fraction == 0:
        raise InputError(
            "build.held_out_fraction is 0: RL uses the model at reward.url only after a test on held-out pairs: "
            "expected a positive fraction, or no reward.url"
        )


def _task_count(recipe: Recipe) -> int:
    """The number of RL tasks. Worlds are not sampled, since they yield as many tasks as configured."""
    settings = recipe.tasks if recipe.rl.tasks is None else recipe.rl.tasks
    where = "tasks" if recipe.rl.tasks is None else "rl.tasks"
    draws = draws_tasks(settings)
    count = drawn_count(settings) if draws else len(load_recipe_tasks(settings, recipe.judges, where=where))
    return count if recipe.rl.tasks is not None or recipe.synth.limit is None else min(count, recipe.synth.limit)


def _plan(context: Context) -> dict[str, int]:
    settings = context.recipe.rl.tasks
    return {} if settings is None else {"rl_tasks": len(context.load(settings, "rl.tasks"))}


def _written_files(about: Mapping[str, Any]) -> tuple[str, ...]:
    return RL.files if about.get("rollouts") else RL.files[:1]  # rl.keep_rollouts is false


RL = Stage(
    name="rl",
    run=rl,
    reads=("sft", "dpo", "reward"),
    files=("models/rl", "rollouts.jsonl"),
    written_files=_written_files,
    verb="rl",
    help="Train the policy by RL.",
    trains="policy",
    curve=("rewright/success", "RL: success of rollouts"),
    uses_tools=True,
    uses_tasks=True,
    check=_check,
    prepare=_prepare,
    plan=_plan,
)
