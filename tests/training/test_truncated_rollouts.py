"""`mask_truncated_completions` on TRL's real trainer: truncated rollouts are masked, and no others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from rewright.cli.main import app
from rewright.core.records import Task, Trajectory
from rewright.dialects import get_dialect
from rewright.engines.embedded import HFSettings
from rewright.rollout.settings import Limits
from rewright.tasks.worlds import almanac, town
from rewright.tools import FunctionTools
from rewright.training.settings import RLSettings

pytest.importorskip("torch")
pytest.importorskip("trl")

MASK = {"mask_truncated_completions": True}


def one_step(folder: Path, dialect: str, limits: Limits, seed: int = 0) -> tuple[list[Trajectory], Any, dict[str, Any]]:
    """One step of RL: its rollouts, the batch that the loss is made of, and what was logged."""
    from rewright.engines.loading import load_model, load_tokenizer
    from rewright.training.trl.rl import RewrightTrainer, train_rl

    batches: list[dict[str, Any]] = []
    rollouts: list[Trajectory] = []

    class Watched(RewrightTrainer):
        def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
            batches.append(super()._generate_and_score_completions(inputs))
            return batches[-1]

    settings = HFSettings(path="pico-tags" if dialect == "tags" else "pico")
    tasks: list[Task] = list((almanac if dialect == "tags" else town).generate("train", 2))
    if dialect == "tags":  # a call is an error then, which is as good here
        tasks = [msgspec.structs.replace(task, tools=()) for task in tasks]
    history = train_rl(
        tasks, load_model(settings), load_tokenizer(settings),
        RLSettings(steps=1, tasks_per_step=2, generations=4, arguments=MASK), folder / "model", seed=seed,
        dialect=get_dialect(dialect), tools=FunctionTools(level="process"), limits=limits,
        on_rollouts=rollouts.extend, trainer_class=Watched,
    )  # fmt: skip
    return rollouts, batches[0], history[0]


@pytest.mark.parametrize(
    ("dialect", "limits"),
    [
        ("tags", Limits(turns=3, turn_tokens=30)),
        ("hermes", Limits(turns=2, turn_tokens=40)),
        ("hermes", Limits(turns=6, turn_tokens=64, trajectory_tokens=230)),  # a result no longer fits
    ],
    ids=["tags", "hermes", "hermes, no room for a result"],
)
def test_only_truncated_rollouts_are_masked(tmp_path: Path, dialect: str, limits: Limits) -> None:
    rollouts, batch, logged = one_step(tmp_path, dialect, limits)
    own = (batch["tool_mask"] * batch["completion_mask"]).sum(dim=1).tolist()
    cut = [one.stop_reason == "token_limit" for one in rollouts]
    assert {True, False} == set(cut), "the limits of this test truncate some"
    assert [length == 0 for length in own] == cut
    whole = [sum(one.mask) for one in rollouts if one.stop_reason != "token_limit"]
    assert [length for length in own if length] == whole
    assert int(batch["num_items_in_batch"]) == sum(own)
    assert logged["completions/clipped_ratio"] == sum(cut) / len(cut)
    assert logged["grad_norm"] > 0
    assert logged["completions/max_terminated_length"] == max(whole)


def test_a_step_whose_rollouts_are_all_masked_is_named(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "stages: [rl]\nmodel: {path: pico, slots: 8}\nlimits: {turn_tokens: 2}\nsandbox: process\n"
        "tasks: {format: town, count: 4}\n"
        f"rl: {{steps: 1, tasks_per_step: 2, generations: 2, arguments: {json.dumps(MASK)}}}\n"
    )
    result = CliRunner().invoke(app, ["run", str(recipe), "--run", str(tmp_path / "run")])
    assert "rl: all 4 rollouts of this step were truncated and are masked" in result.output
    assert "raise limits.turn_tokens" in result.output
