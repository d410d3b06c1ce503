"""Lists of signals, missing numbers, models of signals: recipes, `rewright credit`, the page, the schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
import yaml
from test_credit_seams import SIGNAL, TASK, called, credit_of, rewright, stored_run, trajectory

import rewright as rw
from rewright.credit import Resources
from rewright.pipeline import signal_resources
from rewright.recipe.loader import load_recipe, recipe_hash
from support.static_page import page_data

__all__ = ["rewright"]

Rewright = Callable[..., tuple[int, str, str]]

OWN = """
import math
from rewright.credit import needs

def unknown(trajectories):
    return [[math.nan if "?" in (turn.results or ()) else 1.0 for turn in one.turns] for one in trajectories]

@needs("log_prob")
def scored(trajectories, *, log_prob):
    return [[float(log_prob([([], [1, 2])])[0].sum()) for turn in one.turns] for one in trajectories]
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_signals.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_signals"


def with_unknown(run: Path, count: int) -> Path:
    """Add candidates of another task: one whose result is "?", and `count` others."""
    rows = [trajectory(0, called("age", "?", of="Ada"), task="p")]
    rows += [trajectory(1 + number, called("age", "36", of="Ada"), task="p") for number in range(count)]
    with (run / "trajectories.jsonl").open("ab") as file:
        file.writelines(msgspec.json.encode(row) + b"\n" for row in rows)
    with (run / "tasks.jsonl").open("ab") as file:
        file.write(msgspec.json.encode(msgspec.structs.replace(TASK, id="p")) + b"\n")
    return run


@pytest.mark.parametrize(
    "arguments",
    [
        ("--signal", f"[{{name: matched, scale: 2}}, {{name: {SIGNAL}, scale: 0.5}}]"),
        ("--signal", json.dumps([{"name": "matched", "scale": 2}, {"name": SIGNAL, "scale": 0.5, "reward": 1}])),
        ("--signal", f"[matched, {SIGNAL}]", "signal.0.scale=2", "signal.1.scale=0.5"),
    ],
)
def test_a_list_of_signals_is_their_weighted_sum(
    rewright: Rewright, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    stored_run(tmp_path / "run", rl={"trajectory_reward": "matchtir"})
    found = credit_of(rewright, "run", *arguments)
    assert [row["turn_rewards"] for row in found.values()] == [[2.5, 0.0, 1.0], [pytest.approx(2 * 2 / 3 + 0.5), 0.0]]
    assert found["q/0"]["signal"] == f"2 matched + 0.5 {SIGNAL}"
    assert [call["reward"] for call in found["q/0"]["calls"]] == [2.0, 0.0], "what matching adds to the turns"


def test_the_signal_of_the_table_is_said(rewright: Rewright, tmp_path: Path) -> None:
    stored_run(tmp_path / "run", rl={"trajectory_reward": "matchtir"})
    code, out, said = rewright("credit", "run", "--signal", "[{name: matched, scale: 2}]", "--estimator", "grpo")
    assert (code, "q/0" in out) == (0, True)
    assert (
        'credit: signal [{"name": "matched", "scale": 2.0}], estimator grpo: 2 trajectories; 5 turns, 0 without' in said
    )
    code, _, said = rewright("credit", "run")
    assert (code, "credit: signal" in said) == (0, False)


def test_every_import_path_of_a_list_needs_consent(rewright: Rewright, tmp_path: Path) -> None:
    credit = {"signal": ["matched", {"name": SIGNAL, "scale": 0.5}]}
    stored_run(tmp_path / "run", rl={"trajectory_reward": "matchtir", "credit": credit})
    code, out, said = rewright("credit", "run")
    assert (code, out) == (2, "")
    assert f"rl.credit.signal: {SIGNAL}" in said and "--trusted seams" in said
    assert credit_of(rewright, "run", "--trusted", "seams")["q/0"]["turn_rewards"] == [1.5, 0.0, 1.0]
    code, _, said = rewright("view", "run", "--static", "page.html")
    assert (code, "shown is the credit of the signal matched" in said) == (0, True)


@pytest.mark.parametrize(
    ("credit", "said"),
    [
        (
            {"signal": ["outcome", "score"], "assignment": "greedy"},
            "rl.credit.assignment has no effect: rl.credit.signal",
        ),
        (
            {"signal": ["outcome", {"name": "matched", "assignment": "ot"}], "assignment": "greedy"},
            "rl.credit.assignment has no effect: rl.credit.signal[1].assignment is ot",
        ),
        ({"signal": ["outcome", {"name": "matched", "assignment": "ot", "unmatched": -1}]}, "unmatched has no effect"),
        ({"signal": ["matched", {"name": "score", "smear": 3}]}, "rl.credit.signal[1].smear: must be at most 1, got 3"),
        ({"signal": ["matched", {"name": SIGNAL, "rewrd": 3}]}, "rl.credit.signal[1].rewrd must be a setting of seams"),
        ({"signal": ["matched", "seams.none:none"]}, "rl.credit.signal[1]: signal 'seams.none:none'"),
        ({"signal": {"name": "score", "scale": 2}}, "rl.credit.signal.scale: must be in a list, as in signal: [{name"),
        ({"missing": "zero"}, "rl.credit.missing"),
    ],
)
def test_a_mistake_in_a_list_names_the_part(
    rewright: Rewright, tmp_path: Path, credit: dict[str, Any], said: str
) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"rl": {"credit": credit}}))
    code, _, complaint = rewright("run", "r.yaml", "--dry-run")
    assert (code, said in complaint, complaint.count("\n")) == (2, True, 1), complaint


def test_settings_of_matched_beside_a_list_have_an_effect(rewright: Rewright, tmp_path: Path) -> None:
    stored_run(tmp_path / "run", rl={"trajectory_reward": "matchtir"})
    listed = credit_of(rewright, "run", "signal=[matched, outcome]", "unmatched=-0.25")
    assert listed["q/0"]["turn_rewards"] == [1.0, -0.25, 1.0]


def test_the_schema_accepts_what_the_loader_accepts(rewright: Rewright, tmp_path: Path) -> None:
    code, out, _ = rewright("schema", "recipe")
    assert code == 0
    checker = jsonschema.Draft202012Validator(json.loads(out))
    good: list[Any] = [
        "score", {"name": "score", "smear": 0.5}, ["matched", {"name": "a.b:c", "scale": -1}], [{"name": "outcome"}],
    ]  # fmt: skip
    for signal in good:
        assert checker.is_valid({"rl": {"credit": {"signal": signal}}}), signal
    for signal in ([], [{"scale": 1}], ["match"], [{"name": "score", "scale": 0}], ["outcome"] * 9, 5):
        assert not checker.is_valid({"rl": {"credit": {"signal": signal}}}), signal
    assert checker.is_valid({"rl": {"credit": {"estimator": {"name": "turn_credit", "beta": 2}}}})
    assert checker.is_valid({"signals": {"judge": {"engine": "openai", "base_url": "http://127.0.0.1:1", "path": "m"}}})


def test_new_keys_change_no_hash_of_a_recipe_that_does_not_set_them() -> None:
    sections = ("rl", "signals", "seed")
    usual = recipe_hash(load_recipe(None), sections)
    assert recipe_hash(load_recipe(None, ["rl.credit.signal=[matched]"]), sections) == usual
    assert recipe_hash(load_recipe(None), ("rl", "seed")) == usual
    assert recipe_hash(load_recipe(None, ["rl.credit.missing=bridge"]), sections) != usual


def test_a_missing_number_is_shown_as_missing_and_its_trajectory_is_in_no_group(
    rewright: Rewright, tmp_path: Path, own: str
) -> None:
    with_unknown(stored_run(tmp_path / "run", rl={"trajectory_reward": "matchtir"}), 2)
    signal = ("--signal", f"{own}:unknown")
    found = credit_of(rewright, "run", *signal)
    assert (found["p/0"]["turn_rewards"], found["p/0"]["reward"], found["p/0"]["turn_advantages"]) == (
        [None],
        None,
        None,
    )
    assert found["p/0"]["missing"] == "turn 1 has no number" and found["p/1"]["missing"] is None
    assert found["p/1"]["turn_advantages"] == [0.0], "equal to the other one, without the missing one"
    code, out, said = rewright("credit", "run", *signal)
    line = next(line for line in out.splitlines() if line.startswith("p/0"))
    assert (code, line.split()) == (0, ["p/0", "-", "-", "-", "-"])
    assert (
        "1 of 5 trajectories has a turn without a number of the signal own_signals:unknown (the first is 'p/0')" in said
    )
    assert "8 turns, 1 without a number" in said
    code, _, _ = rewright("credit", "run", *signal, "--picture", "one.svg", "--trajectory", "p/0")
    assert code == 0 and "missing" in (tmp_path / "one.svg").read_text()
    bridged = credit_of(rewright, "run", *signal, "missing=bridge")
    assert bridged["p/0"]["turn_advantages"] is None, "every number of it is missing"


def test_nothing_is_claimed_if_every_number_is_missing(rewright: Rewright, tmp_path: Path, own: str) -> None:
    run = stored_run(tmp_path / "run")
    rows = [trajectory(0, called("age", "?", of="Ada")), trajectory(1, called("age", "?", of="Ada"))]
    (run / "trajectories.jsonl").write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    code, out, said = rewright("credit", "run", "--signal", f"{own}:unknown")
    assert (code, out, said.count("\n")) == (2, "", 1)
    assert "signal own_signals:unknown has no number for a turn of any trajectory (the first is 'q/0': turn 1" in said


def test_the_page_shows_a_missing_number_as_missing(rewright: Rewright, tmp_path: Path, own: str) -> None:
    rl = {"trajectory_reward": "matchtir", "credit": {"signal": f"{own}:unknown"}}
    with_unknown(stored_run(tmp_path / "run", rl=rl), 2)
    code, _, said = rewright("view", "run", "--static", "page.html", "--trusted", own)
    assert code == 0, said
    shown = json.dumps(page_data(tmp_path / "page.html"))
    assert '"rewards": [null], "missing": "turn 1 has no number"' in shown and "NaN" not in shown


def test_scores_of_a_log_are_a_column(rewright: Rewright, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "?"}, *({"role": "assistant", "content": "a"} for _ in range(2))]
    rows = [
        {"messages": messages, "scores": [0.0, 0.5, 1.0], "reward": 1.0, "group": "g"},
        {"messages": messages, "turn_scores": "[0.5, 0.25]", "scores": [7], "reward": 0.0, "group": "g"},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = credit_of(rewright, "log.jsonl", "--signal", "{name: score, start: 0.25}")
    assert [row["turn_rewards"] for row in found.values()] == [[0.5, 1.5], [0.25, -0.25]]
    (tmp_path / "r.yaml").write_text(
        "rl: {trajectory_reward: matchtir, credit: {signal: {name: score, start: first}}}\n"
    )
    found = credit_of(rewright, "log.jsonl", "--recipe", "r.yaml")
    assert [row["turn_rewards"] for row in found.values()] == [[0.0, 1.5], [0.0, -0.25]]
    code, _, said = rewright("credit", "log.jsonl", "--signal", "score")
    assert (code, "1 of 2 trajectories has a turn without a number" in said) == (0, True), said
    in_python = rw.credit(tmp_path / "log.jsonl", signal=[{"name": "score", "start": 0.25, "scale": 2}, "outcome"])
    assert [one.turn_rewards.tolist() for one in in_python] == [[1.0, 2.0], [0.5, -0.5]]


def test_the_warning_says_which_trajectories_with_missing_numbers_are_left_out(
    rewright: Rewright, tmp_path: Path
) -> None:
    messages = [{"role": "user", "content": "?"}, *({"role": "assistant", "content": "a"} for _ in range(2))]
    rows = [
        {"messages": messages, "scores": scores, "reward": 1.0, "group": "g"}
        for scores in ([0.0, 0.5, 1.0], [0.0, None, 1.0], [0.0, None, None])
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for change, end in (
        ("missing=leave_out", "; such a trajectory is in no group"),
        ("missing=bridge", "; 1 of them is in no group, the others counted as no change"),
    ):
        code, _, said = rewright("credit", "log.jsonl", "--signal", "score", change)
        (line,) = [line for line in said.splitlines() if "2 of 3 trajectories have a turn without a number" in line]
        assert code == 0 and line.endswith(end)


def test_a_model_of_a_signal_is_opened_once_and_closed(
    rewright: Rewright, tmp_path: Path, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    class Half:
        def __call__(self, pairs: Any) -> list[Any]:
            return [np.full(len(ids), -0.5) for _, ids in pairs]

        def close(self) -> None:
            opened.append("closed")

    def open_half(sources: signal_resources.ResourceSources) -> Half:
        model = sources.recipe.signals.scorer or sources.policy
        assert model is not None
        opened.append(model.path)
        return Half()

    monkeypatch.setitem(signal_resources.BUILDERS, "log_prob", open_half)
    stored_run(tmp_path / "run", rl={"trajectory_reward": "matchtir"})
    signal = ("--signal", f"[{own}:scored, outcome]")
    found = credit_of(rewright, "run", *signal)
    assert (found["q/1"]["turn_rewards"], opened) == ([-1.0, -1.0], ["pico", "closed"])
    credit_of(rewright, "run", *signal, "--scorer", "other")
    assert opened[2:] == ["other", "closed"]


@pytest.mark.parametrize(
    ("need", "arguments", "said"),
    [
        ("log_prob", (), "needs a model that scores tokens: expected signals.scorer (rewright credit: --scorer MODEL)"),
        ("judge", (), "needs a language model that judges: expected signals.judge (rewright credit: --judge MODEL)"),
        ("branch", (), "needs an engine and the tasks' tools: expected a run directory"),
        ("prefix_score", (), "needs a reward model: expected signals.reward_model"),
        ("judge", ("--judge", "http://127.0.0.1:1"), "expected the name of the model too, as NAME@http://127.0.0.1:1"),
    ],
)
def test_a_model_that_is_missing_is_asked_for(
    rewright: Rewright,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    need: str,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    (tmp_path / f"needs_{need}.py").write_text(
        f"from rewright.credit import needs\n@needs({need!r})\ndef signal(trajectories, **models): return []\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "a"}]
    (tmp_path / "log.jsonl").write_text(json.dumps({"messages": messages, "reward": 1.0}) + "\n")
    code, out, complaint = rewright("credit", "log.jsonl", "--signal", f"needs_{need}:signal", *arguments)
    assert (code, out, said in complaint, complaint.count("\n")) == (2, "", True, 1), complaint


def test_a_judge_is_a_model_or_a_served_name(
    rewright: Rewright, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "judged.py").write_text(
        "from rewright.credit import needs\n@needs('judge')\n"
        "def signal(trajectories, *, judge): return [judge(['?'] * len(one.turns), {}) for one in trajectories]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    models: list[Any] = []

    def open_judge(sources: signal_resources.ResourceSources) -> Any:
        models.append(sources.recipe.signals.judge)
        return lambda prompts, schema: [0.5] * len(prompts)

    monkeypatch.setitem(signal_resources.BUILDERS, "judge", open_judge)
    stored_run(tmp_path / "run", rl={"trajectory_reward": "matchtir"})
    for given in (
        "m@http://127.0.0.1:1/v1",
        "{engine: openai, path: m, base_url: http://127.0.0.1:1/v1}",
        "some/folder",
    ):
        assert credit_of(rewright, "run", "--signal", "judged:signal", "--judge", given)["q/1"]["turn_rewards"] == [
            0.5,
            0.5,
        ]
    assert [(one.engine, one.path) for one in models] == [("openai", "m"), ("openai", "m"), ("hf", "some/folder")]


def test_where_no_model_is_opened_a_signal_that_needs_one_is_not_computed(
    rewright: Rewright, tmp_path: Path, own: str
) -> None:
    stored_run(tmp_path / "run", rl={"trajectory_reward": "matchtir", "credit": {"signal": f"{own}:scored"}})
    code, _, said = rewright("view", "run", "--static", "page.html", "--trusted", own)
    assert (code, "own_signals:scored needs a model, which the page does not open" in said) == (0, True), said
    (tmp_path / "r.yaml").write_text(f"tasks: {{count: 2}}\nrl: {{credit: {{signal: '{own}:scored'}}}}\n")
    code, _, said = rewright("probe-reward", "r.yaml")
    assert (code, said.count("\n")) == (2, 1), said
    assert "rl.credit.signal is own_signals:scored, which needs a model: expected others" in said
    whole = rw.credit(tmp_path / "run", signal=f"{own}:scored", trusted=[own], resources=rw_resources())
    assert [one.turn_rewards.tolist() for one in whole] == [[-1.0, -1.0, 0.0], [-1.0, -1.0]]


def rw_resources() -> Resources:
    return Resources(log_prob=lambda pairs: [np.full(len(ids), -0.5) for _, ids in pairs])
