"""A reward model that is trained with turn prefixes, by the command line, and both signals on the stored run."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("trl")

import torch

from rewright.core.errors import InputError
from rewright.core.records import Provenance, Repair, Task, ToolCall, ToolResult, Trajectory, Turn
from rewright.credit import CreditTrajectory, Resources, turn_signal
from rewright.dialects import get_dialect
from rewright.engines.embedded import HFSettings
from rewright.engines.loading import load_model, load_tokenizer
from rewright.engines.served import OpenAISettings
from rewright.pipeline.context import Context
from rewright.pipeline.rounds import RoundContext, last_sets
from rewright.pipeline.run_directory import Run
from rewright.pipeline.signal_models import (
    log_prob_resource,
    open_log_prob,
    open_prefix_score,
    prefix_score_resource,
    tokenize_resource,
)
from rewright.pipeline.stages.build import build
from rewright.pipeline.stages.prefix_pairs import prefix_pairs
from rewright.recipe.loader import load_recipe, recipe_hash
from rewright.rendering.renderer import Renderer
from rewright.reports.summary import report
from rewright.reports.table import table
from rewright.tasks.loading import save_tasks
from support import command_line
from support.chat_server import Body, chat_server, says
from support.micro_run import RECIPE
from support.served import served

pytestmark = pytest.mark.needs_torch

MORE = "stages: [synth, judge, score, repair, build, reward]\n"
PREFIX_KEYS = {"prefix_auc", "prefix_auc_shorter", "prefix_accuracy", "prefix_pairs", "prefix_tasks"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """A run whose reward model is trained with prefixes, and what it said."""
    folder = tmp_path_factory.mktemp("prefixes")
    text = RECIPE.replace("count: 6", "count: 16").replace("reward: {", "reward: {prefixes: true, ")
    (folder / "r.yaml").write_text(text + MORE)
    done = command_line.run(["run", str(folder / "r.yaml"), "--run", str(folder / "run")], folder)
    assert done.code == 0, done.errors
    return Run(folder / "run"), done.errors


@pytest.fixture(scope="module")
def prefixes(made: tuple[Run, str]) -> list[dict[str, Any]]:
    run, _ = made
    return prefix_pairs(Context(run, run.recipe()), run.pairs())


def by_id(run: Run) -> dict[str, Trajectory]:
    return {trajectory.id: trajectory for trajectory in run.trajectories}


def steps(run: Run) -> int:
    return sum(row["stage"] == "reward" for row in run.metrics())


def test_the_pairs_of_prefixes_are_the_beginnings_of_both_trajectories(
    made: tuple[Run, str], prefixes: list[dict[str, Any]]
) -> None:
    run, _ = made
    trajectories, pairs = by_id(run), {pair["id"]: pair for pair in run.pairs()}
    assert {row["split"] for row in prefixes} == {"train", "heldout"}
    expected = set()
    for name, pair in pairs.items():
        chosen, rejected = (trajectories[one] for one in name.split(">"))
        for turns in range(1, min(len(chosen.turns), len(rejected.turns))):
            ends = [
                [token for turn in one.turns[:turns] for token in (*(turn.token_ids or ()), *turn.suffix_ids)]
                for one in (chosen, rejected)
            ]
            if ends[0] != ends[1]:
                expected.add((name, turns, pair["split"], tuple(ends[0]), tuple(ends[1])))
    prompts = {name: len(trajectories[name.split(">")[1]].prompt_ids or ()) for name in pairs}
    found = {
        (
            name,
            row["turns"],
            row["split"],
            *(tuple(row[side][prompts[name] :]) for side in ("chosen_ids", "rejected_ids")),
        )
        for row in prefixes
        if (name := row["id"].rpartition("/")[0])
    }
    assert found == expected
    for row in prefixes:  # what is trained on is what the signal scores
        original = trajectories[row["id"].rpartition("/")[0].split(">")[1]]
        assert CreditTrajectory.of(original).prefix_ids(row["turns"]) == row["rejected_ids"]


def test_the_stage_trains_on_prefixes_and_says_how_well_it_ranks_held_out_ones(
    made: tuple[Run, str], prefixes: list[dict[str, Any]]
) -> None:
    run, said = made
    pairs = run.pairs()
    training = [row for row in [*pairs, *prefixes] if row["split"] == "train"]
    assert steps(run) == math.ceil(len(training) / 2)
    assert f"reward: {len(prefixes)} pairs of turn prefixes are added to {len(pairs)} pairs" in said
    accuracies = run.state()["reward"]["accuracies"]
    held_out = [row for row in prefixes if row["split"] == "heldout"]
    assert accuracies["prefix_pairs"] == len(held_out)
    assert accuracies["held_out_pairs"] == sum(pair["split"] == "heldout" for pair in pairs)
    score = open_prefix_score(run.path / "models/reward")
    tasks: dict[str, tuple[dict[Any, float], dict[Any, float]]] = {}
    for row in held_out:
        for side, known in zip(("chosen_ids", "rejected_ids"), tasks.setdefault(row["task_id"], ({}, {})), strict=True):
            known[tuple(row[side])] = float(score([row[side]])[0] or 0.0)
    wins = [
        1.0 if one > other else 0.5 if one == other else 0.0
        for good, bad in tasks.values()
        for one in good.values()
        for other in bad.values()
    ]
    assert accuracies["prefix_auc"] == pytest.approx(np.mean(wins), abs=1e-9)
    assert f"reward: AUC {accuracies['prefix_auc']:.3f} on {len(held_out)} pairs of turn prefixes" in said
    assert f"AUC on turn prefixes of held-out tasks: {accuracies['prefix_auc']:.3f}" in table(report(run))


def test_without_the_key_the_stage_is_what_it_was(made: tuple[Run, str], tmp_path: Path) -> None:
    run, _ = made
    shutil.copytree(run.path, tmp_path / "run")
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("prefixes: true", "prefixes: false"))
    done = command_line.run(["reward", str(tmp_path / "run")], tmp_path)
    assert done.code == 0, done.errors
    assert "prefix" not in done.errors
    plain = Run(tmp_path / "run")
    assert steps(plain) == math.ceil(sum(pair["split"] == "train" for pair in plain.pairs()) / 2)
    assert not PREFIX_KEYS & plain.state()["reward"]["accuracies"].keys()
    files = [folder / "preferences.jsonl" for folder in (run.path, plain.path)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_recipes_of_before_keep_their_hash() -> None:
    assert recipe_hash(load_recipe(None, []), ["reward", "seed"]) == recipe_hash(
        load_recipe(None, ["reward.prefixes=false"]), ["reward", "seed"]
    )
    changed = recipe_hash(load_recipe(None, ["reward.prefixes=true"]), ["reward", "seed"])
    assert changed != recipe_hash(load_recipe(None, []), ["reward", "seed"])


def test_the_signal_model_on_the_stored_run(made: tuple[Run, str]) -> None:
    run, _ = made
    context = Context(run, run.recipe())
    rows = [CreditTrajectory.of(one, context.task(one.task_id)) for one in run.trajectories if one.stage == "synth"]
    score = open_prefix_score(run.path / "models/reward")
    signal = turn_signal(rows, "model", resources=Resources(prefix_score=score))
    assert not any(mask.any() for mask in signal.missing)
    for row, values, rewards in zip(rows, signal.values, signal.rewards, strict=True):
        last = float(score([row.token_ids or []])[0] or 0.0)
        assert values[-1] == pytest.approx(1 / (1 + math.exp(-last)), abs=1e-6)
        first = float(score([row.prompt_ids or []])[0] or 0.0)
        assert rewards.sum() == pytest.approx(1 / (1 + math.exp(-last)) - 1 / (1 + math.exp(-first)), abs=1e-6)
    assert score.counts["too_long"] == 0
    assert signal.stats["model/scorings"] == sum(len(row.turns) + 1 for row in rows)
    assert score([[5] * 3000]) == [None], "longer than the context"


@torch.no_grad()
def test_the_signal_likelihood_on_the_stored_run(made: tuple[Run, str]) -> None:
    run, _ = made
    context = Context(run, run.recipe())
    rows = [CreditTrajectory.of(one, context.task(one.task_id)) for one in run.trajectories if one.stage == "synth"]
    settings = HFSettings(path="pico")
    scorer = open_log_prob(settings, get_dialect("hermes"))
    resources = Resources(log_prob=scorer, tokenize=scorer.tokenize)
    signal = turn_signal(rows, "likelihood", resources=resources, form="log_prob")
    assert not any(mask.any() for mask in signal.missing)
    model, tokenizer = load_model(settings), load_tokenizer(settings)
    for row, values, initial in list(zip(rows, signal.values, signal.initial, strict=True))[:6]:  # type: ignore[arg-type]
        states = []
        for turn in range(len(row.turns)):
            prefix = [*(row.prefix_ids(turn) or []), *tokenizer.encode("<answer>", add_special_tokens=False)]
            (gold,) = row.answers or ()
            ids = tokenizer.encode(gold, add_special_tokens=False)
            logits = model(torch.tensor([[*prefix, *ids]])).logits[0]
            log_probs = torch.log_softmax(logits, dim=-1)[len(prefix) - 1 : -1]
            states.append(float(log_probs[torch.arange(len(ids)), torch.tensor(ids)].double().mean()))
        assert initial == pytest.approx(states[0], abs=1e-5)
        assert values.tolist() == pytest.approx([*states[1:], states[-1]], abs=1e-5)
    computed = scorer.counts["computed_tokens"]
    alone = sum(len(row.prefix_ids(turn) or ()) for row in rows for turn in range(len(row.turns)))
    assert computed < 0.7 * alone, "shared prefixes are computed once"
    removed = turn_signal(rows, "likelihood", resources=resources, form="delete")
    assert removed.kind == "advantage" and not any(mask.any() for mask in removed.missing)


def test_resources_of_a_recipe(made: tuple[Run, str], tmp_path: Path) -> None:
    run, _ = made
    recipe = SimpleNamespace(dialect="hermes", signals=SimpleNamespace(scorer=None, reward_model=None))
    sources = SimpleNamespace(recipe=recipe, run=run.path, policy=HFSettings(path="pico"))
    text = "<answer>36</answer>"
    tokenize = tokenize_resource(sources)
    assert tokenize.answer_form == ("<answer>", "</answer>")
    assert tokenize(text) == log_prob_resource(sources).tokenize(text)
    assert prefix_score_resource(sources)([tokenize(text)])[0] is not None
    other = load_tokenizer(HFSettings(path="pico"))
    other.add_tokens(["one more"])
    other.save_pretrained(tmp_path)
    recipe.signals.scorer = HFSettings(path=str(tmp_path))
    for resource in (log_prob_resource, tokenize_resource):
        with pytest.raises(InputError, match=r"that scores tokens has the vocabulary .* expected a model with the"):
            resource(sources)
    sources.policy, sources.vocabulary = None, "0"
    with pytest.raises(InputError, match=r"that scores tokens has the vocabulary .*, the policy 0: expected a model"):
        log_prob_resource(sources)
    with pytest.raises(InputError, match=r"has the vocabulary .*, the policy 0: expected a reward model"):
        prefix_score_resource(sources)
    with pytest.raises(InputError, match="on a server: expected tokenizer"):
        open_log_prob(OpenAISettings(path="served", base_url="http://127.0.0.1:9/v1"), get_dialect("hermes"))
    with pytest.raises(InputError, match="has the vocabulary"):
        open_prefix_score(run.path / "models/reward", vocabulary="0")


def test_a_stop_string_ends_an_answer_as_in_training() -> None:
    """In the dialect tags the generation stops at `</answer>`, and training adds the end token."""
    from rewright.pipeline.signal_models import PrefixScorer

    seen: list[list[int]] = []

    class Recorder:
        vocabulary_size, limit = 1024, 2048

        def score(self, sequences: Any) -> list[float]:
            seen.extend(sequences)
            return [0.0] * len(sequences)

        score_prefixes = score

    renderer = Renderer(load_tokenizer(HFSettings(path="pico-tags")), get_dialect("tags"))
    texts = ["<search>Ada</search>", "<think>So.</think><answer>\\boxed{36}</answer>"]
    ids = [renderer.encode_text(text) for text in texts]
    PrefixScorer(Recorder(), renderer)(ids)
    assert seen == [ids[0], [*ids[1], *renderer.end_ids()]]


def test_rl_with_a_scorer_a_reward_model_and_a_served_judge(made: tuple[Run, str], tmp_path: Path) -> None:
    """The three signals that ask models, added up, in `rewright run`: every turn has a number and its own advantage."""
    asked: list[Body] = []

    def judge(body: Body) -> dict[str, Any]:
        names = body["messages"][-1]["content"].rpartition("The ids are: ")[2].split(", ")
        return says(json.dumps({"scores": [{"id": name, "score": n / len(names)} for n, name in enumerate(names)]}))

    text = RECIPE.replace("steps: 2, tasks_per_step: 2, generations: 2", "steps: 1, tasks_per_step: 2, generations: 3")
    credit = (
        "  credit: {signal: [{name: likelihood}, {name: model, scale: 2}, {name: judge, per: turn, twice: 0}], "
        "estimator: grpo}\n  trajectory_reward: matchtir\n"
    )
    with served(lambda: chat_server(judge, seen=asked)) as url:
        models = (
            f"signals:\n  scorer: {{path: pico}}\n  reward_model: {made[0].path / 'models' / 'reward'}\n"
            f"  judge: {{engine: openai, base_url: '{url}/v1', path: judge}}\n"
        )
        text = re.sub(r"rl: \{(.*)\}\n", lambda m: f"rl:\n  {m[1].replace(', ', chr(10) + '  ')}\n{credit}", text)
        (tmp_path / "r.yaml").write_text(text + "stages: [rl]\n" + models)
        done = command_line.run(["run", str(tmp_path / "r.yaml"), "--run", str(tmp_path / "run")], tmp_path)
    assert done.code == 0, done.errors
    run = Run(tmp_path / "run")
    (logged,) = [row for row in run.metrics() if "rewright/turn_reward" in row]
    rollouts = list(run.rollouts)
    turns = sum(len(one.turns) for one in rollouts)
    assert logged["rewright/signal/likelihood/likelihood/scorings"] == turns
    assert logged["rewright/signal/2 model/model/scorings"] == turns + len(rollouts)
    assert logged["rewright/signal/judge/judge/prompts"] == len(asked) > 0
    assert logged["rewright/credit_missing"] == 0
    for one in rollouts:
        assert one.credit is not None and None not in one.credit.turn_rewards
    assert len({value for one in rollouts if one.credit for value in one.credit.turn_rewards}) > len(rollouts)


def test_pairs_of_all_rounds_have_prefixes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two rounds with a repaired trajectory of two turns each; the sets of round 2 have the pairs of both."""
    tasks = [Task(id=name, messages=({"role": "user", "content": f"What is {name}?"},)) for name in "ab"]
    save_tasks(tmp_path / "tasks.jsonl", tasks)
    settings = (f"tasks.path={tmp_path}/tasks.jsonl", "tasks.format=rewright", "model.path=pico", "repair.rounds=2")
    run = Run.create(tmp_path / "run", load_recipe(None, list(settings)), resume=False)
    run.file("rounds/2").mkdir(parents=True)
    outer = Context(run, run.recipe())

    def made(key: str, stage: str, parent: str | None = None) -> Trajectory:
        call = ToolCall("look_up", {"name": stage})
        asks = Turn(text=f"I ask {stage}.", calls=(call,), results=(ToolResult("36"),))
        turns = (asks, Turn(text=f"<answer>{stage}</answer>"))
        return Trajectory(
            id=f"{stage}/{key}", task_id=key, stage=stage, index=0, turns=turns, stop_reason="answered", answer=stage,
            provenance=Provenance(parent=parent),
        )  # fmt: skip

    with run.locked():
        for key, context in (("a", outer), ("b", RoundContext(outer, 2))):
            original = made(key, context.label("synth"))
            repaired = made(key, context.label("repair"), original.id)
            context.run.trajectories.rewrite([original, repaired])
            about = {"task_id": key, "mode": "wrong_answer", "accepted": True, "reason": "correct"}
            repair = {"original_id": original.id, "repaired_id": repaired.id, **about}
            context.run.repairs.append(msgspec.convert(repair, Repair))
            build(context)
            run.finish(context.label("build"), 1.0)
        pairs = last_sets(run).pairs()
        assert sorted(pair["id"] for pair in pairs) == ["repair/a>synth/a", "repair_2/b>synth_2/b"]
        found = prefix_pairs(outer, pairs)
    assert sorted(row["id"] for row in found) == ["repair/a>synth/a/1", "repair_2/b>synth_2/b/1"]
    assert "give no prefixes" not in capsys.readouterr().err
