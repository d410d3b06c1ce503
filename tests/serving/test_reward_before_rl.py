"""A served reward model is checked before RL, and RL stops whole when it is lost (docs/reward_model.md)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rewright.core.errors import InputError, ServerError
from rewright.core.records import Task
from rewright.core.storage import encode_line
from rewright.pipeline.run_directory import Run
from rewright.pipeline.runner import Pipeline
from rewright.pipeline.stages.reward_gate import connect
from rewright.recipe.loader import load_recipe
from rewright.recipe.schema import Recipe
from rewright.rendering.renderer import Renderer
from rewright.reports.summary import report
from rewright.serving.reward_client import RewardClient
from rewright.tasks.worlds.town import generate
from rewright.training.checkpoints import checkpoint_folder

pytest.importorskip("torch")

from rewright.serving.reward import open_scorer, reward_application
from support.served import served
from support.small_reward_model import make_reward_model


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Renderer]:
    return open_scorer(make_reward_model(tmp_path_factory.mktemp("models") / "reward"))


def pairs(opened: tuple[Any, Renderer], *, right: bool) -> list[dict[str, Any]]:
    """Held-out pairs that the model ranks all right, or all wrong; and one of training, which is not looked at."""
    model, renderer = opened
    prompts = [renderer.task_prompt_ids(task) for task in generate("train", 8, seed=5)]
    scores = model.score(prompts)
    rows = []
    for place in range(0, 8, 2):
        better, worse = sorted((place, place + 1), key=lambda one: scores[one], reverse=right)
        ids = {"chosen_ids": prompts[better], "rejected_ids": prompts[worse]}
        rows.append({**ids, "matched_format": place < 4, "split": "heldout"})
    return [*rows, {**rows[0], "chosen_ids": rows[0]["rejected_ids"], "split": "train"}]


def run_with(folder: Path, rows: list[dict[str, Any]], *settings: str) -> Run:
    run = Run.create(folder, recipe(*settings), resume=False)
    run.write_lines("preferences.jsonl", rows)
    return run


def recipe(*settings: str) -> Recipe:
    small = ["model.slots=4", "tasks.limit=4", "limits.turns=3", "limits.turn_tokens=64", "sandbox=process"]
    steps = [
        "rl.steps=3",
        "rl.tasks_per_step=1",
        "rl.generations=2",
        "rl.temperature=1.5",
        "reward.minimum_pairs=4",
        "stages=[reward, rl]",
    ]
    return load_recipe(None, [*small, *steps, *settings])


def test_the_accuracy_is_that_of_the_server_and_a_bad_one_is_refused(
    tmp_path: Path, opened: tuple[Any, Renderer]
) -> None:
    vocabulary = opened[1].fingerprint
    with served(lambda: reward_application(*opened, "small")) as url:
        good = run_with(tmp_path / "good", pairs(opened, right=True), f"reward.url={url}")
        client, accuracies = connect(good, good.recipe().reward, vocabulary)
        client.close()
        assert (accuracies["accuracy"], accuracies["held_out_pairs"]) == (1.0, 4.0)
        assert (accuracies["accuracy_matched_format"], accuracies["matched_format_pairs"]) == (1.0, 2.0)
        with pytest.raises(InputError, match="token ids of the vocabulary other"):
            connect(good, good.recipe().reward, "other")

        bad = run_with(tmp_path / "bad", pairs(opened, right=False), f"reward.url={url}", "reward.minimum_accuracy=0.6")
        with pytest.raises(
            InputError, match=r"ranks only 0% of 4 held-out pairs right, reward\.minimum_accuracy is 60%"
        ):
            Pipeline(bad).run_all()
        assert bad.is_done("reward"), "none was trained"
        assert not bad.is_done("rl")

        few = run_with(tmp_path / "few", pairs(opened, right=True)[:1], f"reward.url={url}")
        with pytest.raises(InputError, match=r"has 1 held-out pairs.*minimum_pairs is 4"):
            connect(few, few.recipe().reward, vocabulary)


class Dying:
    """A served reward model that answers a number of requests, and then no more."""

    def __init__(self, client: RewardClient, answers: int) -> None:
        self.client, self.answers = client, answers

    def __enter__(self) -> Dying:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        self.answers -= 1
        if self.answers < 0:
            raise ServerError("the reward model does not answer")
        return self.client.score(sequences)


def test_rl_keeps_its_steps_when_the_reward_model_is_lost_and_goes_on_from_there(
    tmp_path: Path, opened: tuple[Any, Renderer], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [2, 100]  # a step asks once

    def dying(*arguments: Any) -> tuple[Dying, dict[str, float | None]]:
        client, accuracies = connect(*arguments)
        return Dying(client, answers.pop(0)), accuracies

    monkeypatch.setattr("rewright.pipeline.stages.rl.connect", dying)
    with served(lambda: reward_application(*opened, "small")) as url:
        run = run_with(tmp_path / "run", pairs(opened, right=True), f"reward.url={url}")
        with run.locked(), pytest.raises(ServerError, match="does not answer"):
            Pipeline(run).run_all()
        kept = [path.name for path in checkpoint_folder(run.model_folder("rl")).glob("checkpoint-*")]
        assert kept == ["checkpoint-2"], "both finished steps, without save_steps"
        made = [one.id for one in run.rollouts]
        assert len(made) == 6, "the rollouts that could not be scored are kept too"
        assert [one.credit is not None for one in run.rollouts] == [True] * 4 + [False] * 2
        assert not run.is_done("rl")

        again = Run.create(tmp_path / "run", run.recipe(), resume=True)
        with again.locked():
            Pipeline(again).run_all()
    assert [row["step"] for row in again.read_lines("metrics.jsonl") if row["stage"] == "rl"] == [1, 2, 3]
    assert answers == []
    assert [one.id for one in again.rollouts] == made, "each once"
    for one in again.rollouts:  # what RL used, the scores too, also of the step that was made again
        assert one.credit is not None and one.credit.reward_model is not None
    found = report(again)
    assert (found["reward_model_accuracy"], found["reward_model_held_out_pairs"]) == (1.0, 4)
    assert json.loads((tmp_path / "run" / "state.json").read_text())["reward"]["skipped"]


def test_a_rollout_without_a_prompt_is_a_broken_one_and_is_not_scored(
    tmp_path: Path, opened: tuple[Any, Renderer]
) -> None:
    good = next(iter(generate("train", 1, seed=5)))
    unreadable = Task(  # its template refuses that
        id="unreadable", messages=({"role": "user", "tool_calls": [{}]},), gold=good.gold
    )
    (tmp_path / "tasks.jsonl").write_bytes(encode_line(good) + encode_line(unreadable))
    tasks = ["tasks.format=rewright", f"tasks.path={tmp_path / 'tasks.jsonl'}", "rl.steps=1", "rl.tasks_per_step=2"]
    with served(lambda: reward_application(*opened, "small")) as url:
        run = run_with(tmp_path / "run", pairs(opened, right=True), f"reward.url={url}", *tasks)
        with run.locked():
            Pipeline(run).run_all()
    ends = {one.task_id: one.failure and one.failure.kind for one in run.rollouts}
    assert ends == {good.id: None, "unreadable": "input"}
    (row,) = [row for row in run.read_lines("metrics.jsonl") if row["stage"] == "rl"]
    assert row["rewright/failures"] == 2
    assert "rewright/reward_model" in row
    broken = [one.credit for one in run.rollouts if one.failure is not None]
    assert [(one.trajectory_reward, one.reward_model) for one in broken if one is not None] == [(None, None)] * 2


def test_a_reward_model_that_no_reward_uses_is_refused_or_not_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"reward\.url has no effect: rl\.trajectory_reward is matchtir"):
        recipe("rl.trajectory_reward=matchtir", "reward.url=http://127.0.0.1:9")
    run = run_with(tmp_path / "run", [], "rl.trajectory_reward=matchtir", "stages=[rl]")
    run.model_folder("reward").mkdir(parents=True)
    with run.locked():
        Pipeline(run).run_all()
    said = " ".join(capsys.readouterr().err.split())
    assert "rl: rl.trajectory_reward is matchtir, which has no reward model: RL runs without a reward model" in said
