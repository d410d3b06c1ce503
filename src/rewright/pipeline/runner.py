"""The whole flow in order, one stage after another, resumable anywhere.

A stage that is marked as done is skipped; a stage that was interrupted goes on from the records that it has written.
Training stages save their model whole or not at all, so an interrupted one starts again (from its last checkpoint
where the recipe saves any). A stage that is done again replaces its earlier results when it is finished
(`rewright.pipeline.redo`).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from rewright.core.deadline import deadline
from rewright.core.errors import InputError
from rewright.core.progress import counted, say
from rewright.core.records import Failure, Trajectory
from rewright.core.scorer import Scorer
from rewright.core.storage import read_jsonl
from rewright.engines.settings import ModelSettings
from rewright.pipeline.context import Context
from rewright.pipeline.redo import Redo, complete, discard_later
from rewright.pipeline.run_directory import INPUTS, Run
from rewright.pipeline.stages.build import build
from rewright.pipeline.stages.data import judge, score, synthesise
from rewright.pipeline.stages.evaluate import evaluate
from rewright.pipeline.stages.held_out import asked, asked_held_out, say_if_too_few, unseen_pairs
from rewright.pipeline.stages.repair import repair
from rewright.pipeline.stages.reward_gate import connect, trusts_own_model, without_reward_model
from rewright.recipe.schema import ALL_STAGES, Stage
from rewright.training.group_credit import call_factor, uses_reward_model

__all__ = ["Pipeline", "redo"]

EVALUATED = {"eval_base": "base", "eval_sft": "sft", "eval_rl": "rl"}


class Pipeline:
    """Runs the stages of a recipe in a run directory (which the caller holds locked).

    Raises InputError for a recipe that names code which the run does not trust (`Run.open`).
    """

    def __init__(self, run: Run) -> None:
        run.check_code()
        complete(run)
        self.run, self.recipe = run, run.recipe()
        self.context = Context(run, self.recipe)

    def run_all(self) -> None:
        """Every stage of the recipe that is not done yet, and those that were stopped while they were done again."""
        if "rl" in self.recipe.stages:
            self.context.check_rewards()
        for stage in ALL_STAGES:
            again = Redo.pending(self.run, stage)
            if again is not None:
                _redo(again)
            elif stage in self.recipe.stages:
                self.run_stage(stage)

    def run_stage(self, stage: Stage) -> None:
        """One stage, unless it is done. Raises InputError where a stage that is done lacks one of its files."""
        if self.run.is_done(stage):
            self.run.require(stage)
            say(f"{stage}: done before")
            return
        self.run.require(*INPUTS.get(stage, ()))
        started = time.monotonic()
        faults = self.context.faults
        faults.clear()
        try:
            with deadline(f"stage {stage}", self.recipe.stage_seconds, setting="stage_seconds"):
                details = self._work(stage)() or {}
        finally:
            if faults:
                say(f"{stage}: failed attempts at the engine: {counted(faults)}")
        if faults:
            details = {**details, "faults": dict(faults)}
        self.run.finish(stage, time.monotonic() - started, **details)
        discard_later(self.run, stage)

    def _work(self, stage: Stage) -> Callable[[], dict[str, Any] | None]:
        if stage in EVALUATED:
            return lambda: self._evaluate(EVALUATED[stage])
        work: dict[str, Callable[[], dict[str, Any] | None]] = {
            "synth": lambda: asyncio.run(synthesise(self.context)),
            "judge": lambda: judge(self.context),
            "score": lambda: dict(score(self.context)),
            "repair": lambda: asyncio.run(repair(self.context)),
            "build": lambda: dict(build(self.context)),
            "sft": self._sft,
            "reward": self._reward,
            "rl": self._rl,
        }
        return work[stage]

    def policy(self, upto: str) -> ModelSettings:
        """The newest model at a stage: trained by RL, by SFT, or the recipe's own where there was nothing to learn.

        Raises InputError where a stage should have trained one and has not, or where its model is missing.
        """
        state = self.run.state()
        for stage in ("rl", "sft") if upto == "rl" else ("sft",) if upto == "sft" else ():
            if state.get(stage, {}).get("skipped"):
                continue
            folder = self.run.model_folder(stage)
            if self.run.is_done(stage):
                self.run.require(stage)
                return self.recipe.model.trained(str(folder))
            if stage in self.recipe.stages or folder.exists():
                raise InputError(f"{self.run.path}: no model of stage {stage}: that stage is not done, run it first")
        return self.recipe.model

    def _evaluate(self, label: str) -> dict[str, Any]:
        if label != "base" and not self.run.is_done(label):
            raise InputError(f"{self.run.path}: no model of stage {label} to evaluate: run that stage first")
        summary = asyncio.run(evaluate(self.context, label, self.policy(label)))
        about = self.run.state().get(label, {})
        if about.get(
            "skipped"
        ):  # nothing was trained: these are the numbers of the model that it would have begun with
            summary["untrained"] = f"stage {label} was skipped ({about.get('reason', 'it had nothing to learn from')})"
        self.run.set_metrics(f"eval_{label}", [summary])
        return {}

    def _sft(self) -> dict[str, Any]:
        from rewright.training.trl.sft import train_sft

        settings = self.recipe.sft
        rows = self._demonstrations() if settings.source == "demonstrations" else self.run.sft_rows()
        if not rows:
            return self._skip(
                "sft", "nothing was kept or repaired, or all is held out", "there is nothing to learn from"
            )
        history = train_sft(rows, self.recipe.model, settings, self.run.model_folder("sft"), seed=self.recipe.seed)
        self.run.set_metrics("sft", history)
        return {"rows": len(rows)}

    def _skip(self, stage: str, reason: str, so: str) -> dict[str, Any]:
        """A stage with nothing to do: it says so, and has no numbers."""
        say(f"{stage}: skipped: {reason}, so {so}")
        self.run.set_metrics(stage, [])
        return {"skipped": True, "reason": reason}

    def _demonstrations(self) -> list[dict[str, Any]]:
        from rewright.engines.loading import load_tokenizer
        from rewright.rendering.renderer import Renderer
        from rewright.tasks.worlds.demonstrations import demonstrate
        from rewright.tasks.worlds.town import generate

        settings, model = self.recipe.sft, self.recipe.model
        renderer = Renderer(load_tokenizer(model), self.context.dialect, template_options=model.template_options)
        outside = asked_held_out(self.run.pairs())
        rows = []
        for task in generate("train", settings.demonstrations, seed=self.recipe.seed, profile=settings.profile):
            if asked(self.context.dialect.messages(task)) in outside:
                continue
            ids, mask = renderer.encode_trajectory(task, demonstrate(task))
            rows.append({"input_ids": ids, "mask": mask})
        return rows

    def _reward(self) -> dict[str, Any]:
        from rewright.training.trl.reward_model import train_reward_model

        if self.recipe.reward.url is not None:
            return self._skip("reward", "reward.url names a served model", "none is trained")
        if "rl" in self.recipe.stages and not uses_reward_model(self.recipe.rl):
            say(f"reward: {without_reward_model(self.recipe.rl)}: RL will not use the model that is trained here")
        pairs = self.run.pairs()
        if not any(pair["split"] == "train" for pair in pairs):
            reason = "no repair was accepted, or all pairs are held out"
            return self._skip("reward", reason, "RL will run without a reward model")
        if not all("chosen_ids" in pair and "rejected_ids" in pair for pair in pairs):
            raise InputError(
                f"{self.run.path}/preferences.jsonl has pairs without token ids: expected model.tokenizer in the recipe"
            )
        pairs = unseen_pairs(self.run, pairs)
        say_if_too_few("reward", pairs, self.recipe)
        history, accuracies = train_reward_model(
            pairs,
            self.policy("sft"),
            self.recipe.reward,
            self.run.model_folder("reward"),
            seed=self.recipe.seed,
            dialect=self.recipe.dialect,
        )
        self.run.set_metrics("reward", history)
        return {"accuracies": accuracies}

    def _rl(self) -> dict[str, Any]:
        from rewright.engines.loading import load_tokenizer

        settings, policy = self.recipe.reward, self.policy("sft")
        tokenizer = load_tokenizer(policy)
        if settings.url is not None and uses_reward_model(self.recipe.rl):
            from rewright.rendering.renderer import Renderer

            vocabulary = Renderer(tokenizer, self.context.dialect).fingerprint
            client, accuracies = connect(self.run, settings, vocabulary)
            with client:
                self._train_rl(policy, tokenizer, client)
            return {"rollouts": self.recipe.rl.keep_rollouts, "accuracies": accuracies}
        reward_model: Scorer | None = None
        if not uses_reward_model(self.recipe.rl):
            if self.run.model_folder("reward").is_dir():
                say(f"rl: {without_reward_model(self.recipe.rl)}: RL runs without a reward model")
        elif trusts_own_model(self.run, settings):
            from rewright.training.trl.reward_model import RewardModel

            reward_model = RewardModel(self.run.model_folder("reward"))
        self._train_rl(policy, tokenizer, reward_model)
        return {"rollouts": self.recipe.rl.keep_rollouts}

    def _train_rl(self, policy: ModelSettings, tokenizer: Any, reward_model: Scorer | None) -> None:
        from rewright.engines.loading import load_trainable
        from rewright.training.trl.rl import train_rl

        recipe, run = self.recipe, self.run
        # Whether a stored rollout has its credit: one of a step whose reward model was lost has none.
        known = {one.id: one.credit is not None for one in run.rollouts} if recipe.rl.keep_rollouts else {}

        def keep(trajectories: list[Trajectory]) -> None:
            run.rollouts.replace(one for one in trajectories if one.credit is not None and known.get(one.id) is False)
            for one in trajectories:
                if one.id not in known:
                    run.rollouts.append(one)
                known[one.id] = one.credit is not None or known.get(one.id, False)

        self.context.check_rewards()
        tasks = self.context.load(recipe.rl.tasks) if recipe.rl.tasks is not None else self.context.tasks
        if call_factor(recipe.rl) and all(task.gold.calls is None for task in tasks):
            say("rl: no task has gold calls: no turn is paid for its calls, the outcome alone is left")
        asyncio.run(self.context.try_tools(tasks))
        model, precision = load_trainable(policy, adapters=recipe.rl.lora_rank is not None)
        history = train_rl(
            tasks,
            model,
            tokenizer,
            recipe.rl,
            run.model_folder("rl"),
            seed=recipe.seed,
            dialect=self.context.dialect,
            tools=self.context.open_tools(),
            limits=recipe.limits,
            template_options=recipe.model.template_options,
            reward_model=reward_model,
            on_rollouts=keep if recipe.rl.keep_rollouts else None,
            judge_seconds=recipe.judge_seconds,
            precision=precision,
        )
        run.set_metrics("rl", history)


class _Broken(msgspec.Struct, frozen=True):
    """What counting needs of a trajectory: its turns are skipped."""

    id: str
    failure: Failure | None = None


def _broken(run: Run, wrong: set[str]) -> Counter[str]:
    """Those of the candidates without a right answer that something broke, by part and cause."""
    if not wrong or not run.trajectories.path.exists():
        return Counter()
    read = (one for _, one in read_jsonl(run.trajectories.path, _Broken))
    return Counter(one.failure.label for one in read if one.failure is not None and one.id in wrong)


def redo(run: Run, stage: Stage) -> None:
    """Do a stage again, from the beginning. Its earlier results stay until it is finished.

    What a stage has written that was stopped is kept for `run_all`, unless it has written nothing.
    """
    Pipeline(run)  # checks the recipe, and finishes what a kill has interrupted
    _redo(Redo.begin(run, stage))


def _redo(again: Redo) -> None:
    try:
        Pipeline(again).run_stage(again.stage)
    finally:
        again.close()
        if not again.has_work():
            again.discard()
