"""`rewright check-batch` on dumps of other shapes: certain tokens, missing numbers, no prompts, credit per turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.batches import STORED, write
from support.in_process import rewright

Row = dict[str, Any]
Places = set[tuple[str, int, int | None]]


def checked(folder: Path, file: str, *arguments: str) -> dict[str, Any]:
    said = rewright(folder, "check-batch", "--json", file, *arguments)
    assert said.code in (0, 1, None), said.errors
    found = json.loads(said.output)
    assert bool(said.code) == bool(found["findings"])
    return found


def found(folder: Path, rows: list[Row], *arguments: str) -> dict[str, Any]:
    write(folder / "dump.jsonl", rows)
    return checked(folder, "dump.jsonl", *arguments)


def places(found: dict[str, Any]) -> Places:
    return {(one["code"], one["row"], one["token"]) for one in found["findings"]}


def confident(share: float, *, everywhere: bool) -> list[Row]:
    """Two turns around a result of 120 tokens. The policy is certain of a share of the tokens, and of its template."""
    rng = np.random.default_rng(0)
    mask = [1] * 80 + [0] * 120 + [1] * 60
    rows = []
    for _ in range(4):
        values = -rng.exponential(1.0, 260) * (rng.random(260) >= share)
        values[80:86] = values[193:200] = 0.0
        rows.append(
            {"prompt_ids": [5, 6], "response_ids": rng.integers(10, 500, 260).tolist(), "mask": mask}
            | {"log_probs": (values if everywhere else values * mask).tolist()}
        )
    return rows


@pytest.mark.parametrize("everywhere", [True, False], ids=["of all tokens", "of sampled tokens"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_tokens_of_which_the_policy_is_certain_are_no_fault(tmp_path: Path, share: float, everywhere: bool) -> None:
    result = found(tmp_path, confident(share, everywhere=everywhere))
    assert result["findings"] == []
    assert ("shifted_mask" in result["checked"]) is not everywhere  # results have such values, too: no evidence


@pytest.mark.parametrize("prompt", [True, False], ids=["prompt_ids", "no prompt_ids"])
def test_a_last_turn_alone_is_found_beside_results_without_log_probs(tmp_path: Path, prompt: bool) -> None:
    rows = [row | {"mask": [0] * 200 + [1] * 60} for row in confident(0.1, everywhere=False)]
    if not prompt:
        rows = [row | {"input_ids": row["response_ids"], "response_ids": None, "prompt_ids": None} for row in rows]
    assert {(code, row) for code, row, _ in places(found(tmp_path, rows))} == {("last_turn_only", i) for i in range(4)}


TURNS: Row = {"prompt_ids": [1, 50], "response_ids": [8, 9, 51, 60, 61, 50, 7, 7, 51]}


@pytest.mark.parametrize(
    ("mask", "log_probs", "expected"),
    [
        ([1, 1, 1, 0, 0, 0, 1, 1, 1], [0, -0.2, -0.1, 0, 0, 0, 0, -0.2, -0.1], set()),
        ([0, 1, 1, 0, 0, 0, 0, 1, 1], [0, -0.2, -0.1, 0, 0, 0, 0, -0.2, -0.1], {("shifted_mask", 0, 0)}),
        (
            [0, 1, 1, 0, 0, 0, 0, 1, 1],
            [0, -0.2, -0.1, 0, 0, 0, -0.3, -0.2, -0.1],
            {("shifted_mask", 0, 0), ("shifted_mask", 0, 6)},
        ),
        ([0, 1, 1, 0, 0, 0, 1, 1, 1], [None, -0.2, -0.1, 0, 0, 0, 0, -0.2, -0.1], {("shifted_mask", 0, 0)}),
        ([0, 1, 1, 1, 0, 0, 0, 1, 1], [0, -0.2, -0.1, 0, 0, 0, 0, -0.2, -0.1], {("shifted_mask", 0, 0)}),
        ([0, 0, 1, 0, 0, 0, 1, 1, 1], [0, 0, -0.1, 0, 0, 0, 0, -0.2, -0.1], {("mask_beside_text", 0, 0)}),
        ([0, 0, 0, 0, 0, 0, 1, 1, 1], [0, -0.2, -0.1, 0, 0, 0, 0, -0.2, -0.1], {("last_turn_only", 0, 0)}),
        ([0, 0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, -0.3, -0.2, -0.1], {("last_turn_only", 0, 0)}),
        ([0, 0, 0, 1, 1, 1, 0, 0, 0], [0, -0.2, -0.1, 0, 0, 0, 0, -0.2, -0.1], {("inverted_mask", 0, 3)}),
        ([0, 0, 0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, -0.3, -0.2, -0.1], {("inverted_mask", 0, 3)}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("padding", [0, 2])
def test_a_certain_first_token_is_generated(
    tmp_path: Path, mask: list[int], log_probs: list[float | None], expected: Places, padding: int
) -> None:
    """`<think>` with probability 1 has the log-probability 0 of a token that nobody sampled."""
    left: list[Any] = [0] * padding
    row = {"prompt_ids": [1, 50], "response_ids": left + TURNS["response_ids"], "mask": left + mask}
    row |= {"log_probs": left + log_probs, "real": left + [1] * 9}
    result = found(tmp_path, [row])
    assert places(result) == {(code, index, token + padding) for code, index, token in expected if token is not None}
    assert "shifted_mask" in result["checked"]


def test_turns_without_a_result_between_them_may_be_masked_as_a_whole(tmp_path: Path) -> None:
    row: Row = {"prompt_ids": [1], "response_ids": [8, 9, 7, 6, 5, 4], "turn_ids": [[8, 9], [7, 6], [5, 4]]}
    rows = [row | {"mask": [1, 1, 1, 1, 0, 0]}, row | {"mask": [0, 0, 1, 1, 1, 1]}, row | {"mask": [1] * 6}]
    assert found(tmp_path, rows)["findings"] == []
    wrong = places(found(tmp_path, [row | {"response_ids": [8, 9, 7, 3, 5, 4], "mask": [1, 1, 1, 1, 0, 0]}]))
    assert {(code, index) for code, index, _ in wrong} == {("mask_beside_text", 0)}


BASE: Row = {"prompt_ids": [5, 6], "response_ids": [8, 9, 4, 7], "mask": [1, 1, 0, 1], "turns": [[0, 2], [3, 4]]}


def test_missing_rewards_of_tokens_and_turns_are_none(tmp_path: Path) -> None:
    rows = [
        BASE | {"group": "a", "reward": 1.0, "token_rewards": [None, None, None, 1.0]},
        BASE | {"group": "a", "reward": 0.0, "token_rewards": [None, None, None, 0.0]},
        BASE | {"group": "a", "reward": 0.5, "turn_rewards": [None, 0.5]},
    ]
    result = found(tmp_path, rows)
    assert (result["findings"], "lost_reward" in result["checked"]) == ([], True)
    rows[0]["reward"] = 2.0
    assert places(found(tmp_path, rows)) == {("lost_reward", 0, 3)}


@pytest.mark.parametrize("layout", ["verl", "skyrl"])
def test_missing_rewards_of_tokens_are_read_in_other_layouts(tmp_path: Path, layout: str) -> None:
    scores = [[None, None, None, 1.0]]
    batch: Row = {
        "verl": {"responses": [[8, 9, 4, 7]], "response_mask": [[1, 1, 0, 1]], "token_level_scores": scores},
        "skyrl": {"response_ids": [[8, 9, 4, 7]], "loss_masks": [[1, 1, 0, 1]], "rewards": scores},
    }[layout]
    (tmp_path / "batch.json").write_text(json.dumps(batch))
    result = checked(tmp_path, "batch.json")
    assert (result["findings"], "lost_reward" in result["checked"]) == ([], True)
    batch["token_level_scores" if layout == "verl" else "rewards"] = [["x", 0, 0, 0]]
    (tmp_path / "batch.json").write_text(json.dumps(batch))
    rewright(tmp_path, "check-batch", "batch.json").refused("batch.json: row 0")


@pytest.mark.parametrize("key", ["padding", "truncated", "trajectory"])
def test_a_reward_that_is_nan_is_unknown(tmp_path: Path, key: str) -> None:
    arrays: dict[str, Any] = {
        "group": ["a"] * 5,
        "prompt_ids": [[5, 6]] * 5,
        "response_ids": [[8, 9, 4, 7]] * 5,
        "mask": [[1, 1, 0, 1]] * 5,
        "reward": [1.0, 0.0, np.nan, 1.0, 1.0],
        "advantages": [0.5, -1.0, 0.0, 0.5, 0.5],
        key: ["t", "t", "u", "v", "w"] if key == "trajectory" else [False, False, False, False, True],
    }
    np.savez(tmp_path / "batch.npz", **{name: np.array(value) for name, value in arrays.items()})
    assert checked(tmp_path, "batch.npz")["findings"] == []


def test_rollouts_that_failed_before_their_prompt_are_counted(tmp_path: Path) -> None:
    lines = STORED.read_text().splitlines()
    early = json.loads(lines[1]) | {"turns": [], "stop_reason": "error", "credit": None}
    early |= {"failure": {"kind": "tools", "message": "no such server"}}
    early.pop("prompt_ids")
    (tmp_path / "rollouts.jsonl").write_text("\n".join([json.dumps(early), *lines[2:]]) + "\n")
    result = checked(tmp_path, ".")
    assert (result["rows"], result["failed_rollouts"], result["findings"]) == (len(lines) - 2, 1, [])
    said = rewright(tmp_path, "check-batch", ".")
    assert "left out: 1 rollouts that failed before their prompt had token ids" in said.output
    (tmp_path / "rollouts.jsonl").write_text(json.dumps(early) + "\n")
    rewright(tmp_path, "check-batch", ".").refused("all 1 rollouts failed before their prompt had token ids")
    healthy = early | {"stop_reason": "answered", "failure": None}
    (tmp_path / "rollouts.jsonl").write_text(json.dumps(healthy) + "\n")
    rewright(tmp_path, "check-batch", ".").refused("its engine did not return them")


def alone(rewards: list[float], values: list[float], **keys: Any) -> list[Row]:
    """One trajectory per group."""
    return [
        {"group": f"g{i}", "response_ids": [8, 9 + i], "mask": [1, 1], "reward": reward, "advantages": value} | keys
        for i, (reward, value) in enumerate(zip(rewards, values, strict=True))
    ]


def test_groups_of_one_trajectory_without_any_advantage_are_named(tmp_path: Path) -> None:
    rewards = [0.0, 1.0, 0.0, 1.0]
    one_prompt = found(tmp_path, alone(rewards, [0.0] * 4, prompt_ids=[5, 6]))
    assert places(one_prompt) == {("single_groups", 0, None)}
    assert "all advantages are 0, though rewards differ" in one_prompt["findings"][0]["what"]
    assert places(found(tmp_path, alone(rewards, [0.0] * 4))) == {("single_groups", 0, None)}
    step_wise = [row | {"trajectory": str(i // 2)} for i, row in enumerate(alone(rewards, [0.0] * 4, task="a"))]
    for row in step_wise:
        row |= {"group": row["trajectory"], "reward": float(row["trajectory"])}
    assert places(found(tmp_path, step_wise)) == {("single_groups", 0, None)}
    step_wise[0]["advantages"] = 0.5
    assert places(found(tmp_path, step_wise)) == set()


def test_one_trajectory_per_prompt_is_no_fault(tmp_path: Path) -> None:
    """REINFORCE: the raw reward is the advantage. Without prompts nobody can tell whether groups belong together."""
    rewards = [0.0, 1.0, 0.0, 1.0]
    unknown = found(tmp_path, alone(rewards, rewards))
    assert unknown["findings"] == []
    assert "needs task or prompt_ids" in unknown["not_checked"]["single_groups"]
    known = found(tmp_path, [row | {"prompt_ids": [i]} for i, row in enumerate(alone(rewards, rewards))])
    assert (known["findings"], "single_groups" in known["checked"]) == ([], True)
    assert places(found(tmp_path, alone(rewards, rewards, task="a"))) == {("single_groups", 0, None)}
    equal = found(tmp_path, alone([1.0] * 4, [0.0] * 4, task="a"))
    assert equal["findings"] == []


def steps(early: dict[str, list[float]], *, key: str = "turns") -> list[Row]:
    """Trajectories of two rows with two turns each; the advantages of the first rows are given."""
    two: Row = {
        "prompt_ids": [5, 6], "response_ids": [8, 9, 7, 3], "mask": [1, 1, 1, 1], "group": "a",
        "turns": {"turns": [[0, 2], [2, 4]]}.get(key), "turn_ids": {"turn_ids": [[8, 9], [7, 3]]}.get(key),
    }  # fmt: skip
    return [
        two | {"trajectory": name, "last_step": last, "advantages": [0.5, 0.5, 0.7, 0.7] if last else values}
        for name, values in early.items()
        for last in (False, True)
    ]


@pytest.mark.parametrize("key", ["turns", "turn_ids"])
def test_a_turn_without_credit_beside_one_with_credit_is_no_fault(tmp_path: Path, key: str) -> None:
    some = found(tmp_path, steps({"x": [0.5, 0.5, 0, 0], "y": [-0.5, -0.5, -0.2, -0.2]}, key=key))
    assert (some["findings"], "step_advantages" in some["checked"]) == ([], True)
    every = found(tmp_path, steps({"x": [0.5, 0.5, 0, 0], "y": [0, 0, -0.2, -0.2]}, key=key))
    assert every["findings"] == []
    within = found(tmp_path, steps({"x": [0.5, 0.5, 0.5, 0], "y": [-0.5, -0.5, -0.2, -0.2]}, key=key))
    assert places(within) == {("step_advantages", 0, 3)}
    nothing = found(tmp_path, steps({"x": [0, 0, 0, 0], "y": [0, 0, 0, 0]}, key=key))
    assert places(nothing) == {("step_advantages", 0, 0), ("step_advantages", 2, 0)}


MARKERS = ("--turn-start", "50", "--turn-end", "51")


@pytest.mark.parametrize("asked", ["prompt_ids", "response_ids", "input_ids"])
def test_markers_of_a_padded_row_that_was_cut_off(tmp_path: Path, asked: str) -> None:
    """A response begins within a turn, also where its prompt is not in the dump, and its last turn ends with it."""
    ids, mask = [8, 9, 51, 60, 61, 50, 7, 7], [1, 1, 1, 0, 0, 0, 1, 1]
    row: Row = {"response_ids": [*ids, 0, 0], "mask": [*mask, 0, 0], "real": [1] * 8 + [0] * 2, "truncated": True}
    if asked == "prompt_ids":
        row["prompt_ids"] = [1, 51, 50]
    if asked == "input_ids":
        row = {"input_ids": [1, 51, 50, *ids, 0, 0], "mask": [0, 0, 0, *mask, 0, 0], "real": [1] * 11 + [0] * 2}
    result = found(tmp_path, [row], *MARKERS)
    assert result["findings"] == []
    assert {"shifted_mask", "turn_boundaries", "last_turn_only"} <= set(result["checked"])
    late = places(found(tmp_path, [row | {"mask": [0, *row["mask"][:-1]]}], *MARKERS))
    first = 3 if asked == "input_ids" else 0
    assert late == {("shifted_mask", 0, first), ("shifted_mask", 0, first + 6)}


def test_earlier_turns_in_the_context_of_a_step_are_trained_in_their_own_rows(tmp_path: Path) -> None:
    first: Row = {"input_ids": [1, 50, 8, 9, 51], "mask": [0, 0, 1, 1, 1], "trajectory": "a", "last_step": False}
    second: Row = {"input_ids": [*first["input_ids"], 60, 50, 7, 51], "mask": [0] * 7 + [1, 1], "trajectory": "a"}
    result = found(tmp_path, [first, second | {"last_step": True}], *MARKERS)
    assert (result["findings"], "last_turn_only" in result["checked"]) == ([], True)
    wrong = places(found(tmp_path, [first | {"mask": [0] * 5}, second | {"last_step": True}], *MARKERS))
    assert ("last_turn_only", 0, 0) in wrong
    alone = {key: value for key, value in second.items() if key != "trajectory"}
    assert places(found(tmp_path, [alone], *MARKERS)) == {("last_turn_only", 0, 2)}


@pytest.mark.parametrize("key", ["turn_ids", "turn_texts"])
def test_a_short_turn_may_be_a_part_of_a_result_too(tmp_path: Path, key: str) -> None:
    ids = [8, 9, 51, 60, 3, 51, 50, 3, 51]
    row: Row = {
        "prompt_ids": [1],
        "response_ids": ids,
        "mask": [1, 1, 1, 0, 0, 0, 0, 1, 1],
        "turn_ids": [ids[:3], [3, 51]],
    }
    if key == "turn_texts":
        row |= {"tokens": [f"<{one}>" for one in ids], "turn_texts": ["<8><9><51>", "<3><51>"], "turn_ids": None}
    for mask in (row["mask"], [1, 1, 0, 0, 0, 0, 0, 1, 0]):  # end markers may be untrained
        assert found(tmp_path, [row | {"mask": mask}])["findings"] == []
    assert places(found(tmp_path, [row | {"mask": [1, 1, 1, 1, 0, 0, 0, 1, 1]}])) != set()


def test_log_probs_of_all_tokens_but_a_long_prompt_are_no_evidence(tmp_path: Path) -> None:
    rows = [
        {"input_ids": [7] * 300 + row["response_ids"], "mask": [0] * 300 + row["mask"]}
        | {"log_probs": [0.0] * 300 + row["log_probs"]}
        for row in confident(0.1, everywhere=True)
    ]
    assert found(tmp_path, rows)["findings"] == []


def counted(rewards: list[list[float]], counts: list[list[int]], means: list[float], deviation: float) -> list[Row]:
    """Step-wise groups: a reward and a number of rows for each trajectory, the mean that was subtracted."""
    return [
        {"group": str(g), "trajectory": f"{g}.{i}", "prompt_ids": [g], "response_ids": [8, 9], "mask": [1, 1]}
        | {"reward": reward, "advantages": (reward - means[g]) / deviation, "last_step": step == counts[g][i] - 1}
        for g, group in enumerate(rewards)
        for i, reward in enumerate(group)
        for step in range(counts[g][i])
    ]


def test_a_mean_over_the_whole_batch_is_no_mean_over_turns(tmp_path: Path) -> None:
    """REINFORCE++ compares with the batch; the mean over the rows of group 1 is the same here, by chance."""
    rewards, counts = (
        [[1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, 1.0]],
        [[3, 1], [3, 1], [2, 3], [3, 2], [1, 3]],
    )
    batch = counted(rewards, counts, [0.2] * 5, 0.98)
    result = found(tmp_path, batch)
    assert (result["findings"], "turns_in_mean" in result["checked"]) == ([], True)
    turns = [1.0, -0.5, 0.2, -1.0, 1.0]
    assert {code for code, _, _ in places(found(tmp_path, counted(rewards, counts, turns, 0.98)))} == {"turns_in_mean"}
    # Dr. GRPO divides by nothing, and the deviation of these rows is 1
    even = counted([[-3.0, 0.0, -1.0, -2.0]], [[2, 2, 4, 4]], [-1.5], 1.0)
    assert found(tmp_path, even)["findings"] == []
