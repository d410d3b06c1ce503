"""A step of RL without a trainer: plans, rollouts, verdicts, scores and credit, as every back end computes them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rewright.core.errors import EngineError
from rewright.dialects import get_dialect
from rewright.engines.base import Request, Sampling
from rewright.engines.embedded import HFSettings
from rewright.engines.loading import load_tokenizer
from rewright.rendering.renderer import Renderer
from rewright.rollout.loop import Rollout
from rewright.rollout.settings import Limits
from rewright.tasks.worlds.town import generate
from rewright.tools import FunctionTools
from rewright.training.group_credit import score_rollouts, with_credit
from rewright.training.rl_step import judge_rollouts, plan_step, roll_out, score_with_reward_model, step_metrics
from rewright.training.settings import RLSettings
from support.scripted_engine import ScriptedEngine


class LengthModel:
    """A reward model that prefers short sequences."""

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        return [-float(len(one)) for one in sequences]


@pytest.mark.needs_torch
async def test_a_step_is_rolled_out_judged_scored_and_credited() -> None:
    first, second = generate("train", 2, profile="short")
    dialect, settings = get_dialect("hermes"), RLSettings(generations=2, tasks_per_step=2)
    tokenizer = load_tokenizer(HFSettings())
    renderer = Renderer(tokenizer, dialect)

    def script(request: Request, turn: int) -> str | Exception:
        answers = {plans[0].id: first.gold.answers[0], plans[1].id: "nothing", plans[2].id: "nothing"}
        if request.session not in answers:
            return EngineError("the server is gone")
        return f"<answer>{answers[request.session]}</answer>"

    tasks = [first, first, second, second]
    plans = plan_step(tasks, step=3, seed=5)
    assert [plan.id for plan in plans] == [f"rl/{task.id}/3/{place}" for place, task in enumerate(tasks)]
    assert len({plan.seed for plan in plans}) == 4
    assert plan_step(tasks[2:], step=3, seed=5, first=2) == plans[2:], "spread over processes, it is the same step"

    engine = ScriptedEngine(script, tokenizer=tokenizer)
    loop = Rollout(
        engine, dialect, FunctionTools(level="process"), renderer=renderer, limits=Limits(turns=2), sampling=Sampling()
    )
    trajectories = await roll_out(loop, plans, concurrency=2)
    await loop.tools.close()
    assert [one.id for one in trajectories] == [plan.id for plan in plans]
    assert trajectories[3].failure is not None

    verdicts = judge_rollouts(tasks, trajectories, settings)
    assert [verdict.correct for verdict in verdicts] == [True, False, False, False]
    scores = score_with_reward_model(LengthModel(), renderer, tasks, trajectories)
    assert scores[3] is None
    assert scores[:3] == [
        -len(renderer.training_ids(task, one)[0]) for task, one in zip(tasks, trajectories[:3], strict=False)
    ]

    rewards = score_rollouts(tasks, trajectories, verdicts, settings, dialect="hermes", scores=scores)
    credited = with_credit(trajectories, verdicts, rewards, "hermes")
    right, wrong, alone, broken = (one.credit for one in credited)
    assert right is not None and wrong is not None and alone is not None and broken is not None
    assert right.advantages[-1] > 0 > wrong.advantages[-1]
    assert not any(alone.advantages) and not any(broken.advantages)
    metrics = step_metrics(rewards, trajectories)
    assert metrics["rewright/success"] == 1 / 3 and metrics["rewright/failures"] == 1.0
    assert "rewright/reward_model" not in step_metrics(
        score_rollouts(tasks, trajectories, verdicts, settings, dialect="hermes"), trajectories
    )
