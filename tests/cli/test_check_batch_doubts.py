"""`rewright check-batch` where the numbers of a dump are rounded, filled or ambiguous: no alarm, and no pass either."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.batches import one_row_each, write
from support.in_process import rewright

Row = dict[str, Any]


def found(folder: Path, rows: list[Row], *arguments: str) -> dict[str, Any]:
    write(folder / "dump.jsonl", rows)
    said = rewright(folder, "check-batch", "--json", "dump.jsonl", *arguments)
    assert said.code in (0, 1, None), said.errors
    return json.loads(said.output)


def places(result: dict[str, Any]) -> set[tuple[str, int, int | None]]:
    return {(one["code"], one["row"], one["token"]) for one in result["findings"]}


TURNS: Row = {"prompt_ids": [1, 50], "response_ids": [8, 9, 7, 51, 60, 61, 62, 50, 5, 6, 7, 51]}
MASK = [1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1]
SAMPLED = [-0.3, -0.2, -0.4, -0.1, 0, 0, 0, 0, -0.2, -0.3, -0.5, -0.25]
OLD = [-0.31, -0.22, -0.38, -0.12, -4, -5, -3, -2, -0.21, -0.3, -0.52, -0.25]


@pytest.mark.parametrize("evidence", ["turns", "turn_ids", "log_probs"])
@pytest.mark.parametrize("fill", [-1, -100])
@pytest.mark.parametrize("end_trained", [True, False])
def test_a_constant_for_tokens_that_were_not_sampled(
    tmp_path: Path, evidence: str, fill: int, end_trained: bool
) -> None:
    """It is neither a log-probability nor a token that was rejected by its ratio, beside untrained end markers too."""
    ids = TURNS["response_ids"]
    row = TURNS | {"log_probs": [p or fill for p in SAMPLED], "old_log_probs": OLD}
    row |= {"turns": {"turns": [[0, 4], [8, 12]]}, "turn_ids": {"turn_ids": [ids[:4], ids[8:]]}}.get(evidence, {})
    mask = [m * (end_trained or token != 51) for m, token in zip(MASK, ids, strict=True)]
    result = found(tmp_path, [row | {"mask": mask}])
    assert (result["findings"], "shifted_mask" in result["checked"]) == ([], True)
    late = found(tmp_path, [row | {"mask": [0, *mask[:-1]]}])
    assert ("shifted_mask", 0, 0) in places(late)
    if evidence != "log_probs":
        inverted = found(tmp_path, [row | {"mask": [1 - trained for trained in mask]}])
        assert {code for code, _, _ in places(inverted)} == {"inverted_mask"}
    last = found(tmp_path, [row | {"mask": [0] * 8 + mask[8:]}])
    assert {code for code, _, _ in places(last)} == {"last_turn_only"}


def test_a_check_says_of_how_many_rows_it_could_speak(tmp_path: Path) -> None:
    rows = one_row_each()
    for number, row in enumerate(rows):
        for key in ("turns", "turn_ids", "tokens", "turn_texts", *(["log_probs"] if number >= 3 else [])):
            row.pop(key, None)
    path = str(write(tmp_path / "dump.jsonl", rows))
    lines = rewright(tmp_path, "check-batch", path).output.splitlines()
    for name in ("inverted_mask", "shifted_mask", "masked_log_probs"):
        assert f"{name}: ok (could speak of 3 of {len(rows)} rows)" in lines
    partly = json.loads(rewright(tmp_path, "check-batch", path, "--json").output)["partly_checked"]
    assert partly["shifted_mask"] == {"rows": 3, "of": len(rows)}


def test_one_token_without_a_log_probability_was_not_rejected(tmp_path: Path) -> None:
    """A line break after the last turn."""
    row: Row = {"prompt_ids": [1], "response_ids": [8, 9, 51, 10], "mask": [1, 1, 1, 0], "turns": [[0, 3]]}
    row |= {"log_probs": [-0.2, -0.3, -0.1, -1.5], "old_log_probs": [-0.2, -0.31, -0.1, -3.0]}
    assert found(tmp_path, [row])["findings"] == []


def test_texts_without_end_markers(tmp_path: Path) -> None:
    ids = TURNS["response_ids"]
    row = TURNS | {"mask": MASK, "tokens": [f"<{one}>" for one in ids], "turn_texts": ["<8><9><7>", "<5><6><7>"]}
    assert found(tmp_path, [row])["findings"] == []
    part = row | {"tokens": [f"<{one}>" for one in [*ids[:4], 5, 6, 7, *ids[7:]]]}  # the answer is in the result, too
    assert found(tmp_path, [part])["findings"] == []
    moved = [*ids[:4], 63, *ids[4:-1]]  # a result of one token more
    moved_row = row | {"response_ids": moved, "tokens": [f"<{one}>" for one in moved]}
    for turns in ({}, {"turns": [[0, 4], [8, 12]]}):  # positions that are as old as the mask
        assert "mask_beside_text" in {code for code, _, _ in places(found(tmp_path, [moved_row | turns]))}


def test_the_opening_of_the_next_row_s_turn_is_no_turn(tmp_path: Path) -> None:
    """A step of a trajectory whose results end with what opens the next turn."""
    first: Row = {"prompt_ids": [1, 50], "response_ids": [8, 9, 51, 60, 51, 50], "mask": [1, 1, 1, 0, 0, 0]}
    second: Row = {"prompt_ids": [1, 50, 8, 9, 51, 60, 51, 50], "response_ids": [7, 51], "mask": [1, 1]}
    rows = [row | {"trajectory": "a", "truncated": False} for row in (first, second)]
    result = found(tmp_path, rows, "--turn-start", "50", "--turn-end", "51")
    assert (result["findings"], "turn_boundaries" in result["checked"]) == ([], True)


def test_a_last_turn_alone_is_found_though_no_prompt_shows_where_the_first_begins(tmp_path: Path) -> None:
    row: Row = {"response_ids": TURNS["response_ids"], "mask": [0] * 8 + [1] * 4}
    for evidence in ({"turns": [[0, 4], [8, 12]]}, {"log_probs": SAMPLED}):
        result = found(tmp_path, [row | evidence], "--turn-start", "50", "--turn-end", "51")
        assert places(result) == {("last_turn_only", 0, 0)}


def test_rewards_that_are_rounded_one_by_one_are_not_lost(tmp_path: Path) -> None:
    """In bfloat16: -1.402 and -1.355, and their sum."""
    row = TURNS | {"mask": MASK, "token_rewards": [0, 0, 0, -1.3984375, *[0] * 7, -1.3515625], "reward": -2.765625}
    result = found(tmp_path, [row])
    assert (result["findings"], "lost_reward" in result["checked"]) == ([], True)
    lost = found(tmp_path, [row | {"token_rewards": [0, 0, 0, -1.3984375, *[0] * 8]}])
    assert places(lost) == {("lost_reward", 0, 11)}


def test_the_reward_of_a_turn_that_was_cut_off(tmp_path: Path) -> None:
    whole = TURNS | {"mask": MASK, "turns": [[0, 4], [8, 12]], "truncated": False}
    rows = [whole | {"turn_rewards": [0.25, last], "reward": 0.25 + last} for last in (0.5, 1.0, 0.0)]
    cut = whole | {"truncated": True, "turn_rewards": [0.25, 0.5], "reward": 0.25}
    assert found(tmp_path, [*rows, cut | {"reward": 0.75}])["findings"] == []
    assert places(found(tmp_path, [*rows, cut])) == {("lost_reward", 3, 11)}
    outcome = [row | {"reward": 1.0} for row in rows]  # rewards of turns beside that of the trajectory
    assert found(tmp_path, [*outcome, cut])["findings"] == []


def step(trajectory: str, values: list[float], **keys: Any) -> list[Row]:
    two: Row = {"group": "a", "prompt_ids": [5], "response_ids": [8, 9], "mask": [1, 1], "trajectory": trajectory}
    last = len(values) - 1
    return [two | {"advantages": one, "last_step": i == last} | keys for i, one in enumerate(values)]


def test_zeros_on_the_earlier_steps_of_one_trajectory(tmp_path: Path) -> None:
    """Where the others have one advantage per trajectory, they are no credit per turn."""
    right = step("a", [0.7, 0.7]) + step("b", [-0.7, -0.7, -0.7])
    wrong = found(tmp_path, right + step("c", [0, 0, 0.4]))
    assert places(wrong) == {("step_advantages", 5, 0), ("step_advantages", 6, 0)}
    per_turn = step("a", [0.7, 0.2]) + step("b", [-0.7, 0.1, -0.7]) + step("c", [0, 0, 0.4])
    assert found(tmp_path, per_turn)["findings"] == []


def test_zeros_on_all_earlier_steps_may_be_their_credit(tmp_path: Path) -> None:
    rows = step("a", [0, 0.7]) + step("b", [0, 0, -0.7])
    assert {code for code, _, _ in places(found(tmp_path, rows))} == {"step_advantages"}
    per_turn = found(tmp_path, [row | {"turn_rewards": [0.0]} for row in rows])
    assert per_turn["findings"] == []
    assert "turn_rewards" in per_turn["not_checked"]["step_advantages"]


def test_equal_rewards_do_not_show_groups_of_one_trajectory(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"group": f"g{i}", "task": "a", "response_ids": [8], "mask": [1], "reward": 1.0, "advantages": 0.0}
        for i in range(4)
    ]
    result = found(tmp_path, rows)
    assert (result["findings"], "single_groups" in result["not_checked"]) == ([], True)


@pytest.mark.parametrize("aligned", ["start", "end"])
def test_a_copy_of_advantages_per_token_is_known_by_its_values(tmp_path: Path, aligned: str) -> None:
    """As of GAE."""
    two: Row = {"group": "a", "prompt_ids": [5], "trajectory": "a", "response_ids": [8, 9, 7], "mask": [1, 1, 1]}
    last = two | {"last_step": True, "advantages": [0.3, -0.2, 0.9]}
    longer = two | {"response_ids": [8, 9, 7, 6, 5], "mask": [1] * 5, "last_step": False}
    copied = [0.3, -0.2, 0.9, 0, 0] if aligned == "start" else [0, 0, 0.3, -0.2, 0.9]
    assert found(tmp_path, [longer | {"advantages": [0.1, 0.2, 0.5, 0.4, 0.3]}, last])["findings"] == []
    wrong = places(found(tmp_path, [longer | {"advantages": copied}, last]))
    assert wrong == {("step_advantages", 0, 3 if aligned == "start" else 0)}


def test_the_reward_of_an_earlier_step_may_be_at_the_last_one(tmp_path: Path) -> None:
    """Rows of the steps of a trajectory that no label joins."""
    two: Row = {"prompt_ids": [5], "response_ids": [8, 9], "mask": [1, 1], "reward": 1.0}
    rows = [two | {"last_step": False, "token_rewards": [0, 0]}, two | {"last_step": True, "token_rewards": [0, 1.0]}]
    result = found(tmp_path, rows)
    assert (result["findings"], "lost_reward" in result["checked"]) == ([], True)
    assert places(found(tmp_path, [rows[0], rows[1] | {"token_rewards": [0, 0]}])) == {("lost_reward", 1, 1)}


def test_positions_do_not_show_that_the_mask_lies_on_the_text(tmp_path: Path) -> None:
    """A result of one token more, of which the positions know as little as the mask."""
    ids = TURNS["response_ids"]
    moved = TURNS | {"response_ids": [*ids[:4], 63, *ids[4:-1]], "mask": MASK}
    for evidence in ({"turns": [[0, 4], [8, 12]]}, {"log_probs": SAMPLED}):
        result = found(tmp_path, [moved | evidence])
        assert (result["findings"], "shifted_mask" in result["checked"]) == ([], True)
        assert "positions may be as old as the mask" in result["not_checked"]["mask_beside_text"]
    by_ids = found(tmp_path, [moved | {"turns": [[0, 4], [8, 12]], "turn_ids": [ids[:4], ids[8:]]}])
    assert {code for code, _, _ in places(by_ids)} == {"mask_beside_text"}
    assert (
        "mask_beside_text"
        in found(tmp_path, [TURNS | {"mask": MASK}], "--turn-start", "50", "--turn-end", "51")["checked"]
    )


def test_trained_padding_is_named(tmp_path: Path) -> None:
    """A mask that contradicts the attention mask."""
    row = TURNS | {"mask": MASK, "real": [1] * 10 + [0] * 2, "turns": [[0, 4], [8, 10]]}
    assert places(found(tmp_path, [row])) == {("mask_beside_text", 0, 10)}
    assert places(found(tmp_path, [row | {"turns": None, "mask": [0] * 10 + [1, 0]}])) == {("mask_beside_text", 0, 10)}
    verl: Row = {"responses": [[8, 9, 51, 0]], "response_mask": [[1, 1, 1, 1]], "attention_mask": [[1, 1, 1, 1, 1, 0]]}
    (tmp_path / "batch.json").write_text(json.dumps(verl | {"prompts": [[1, 50]]}))
    assert "row 0, token 3" in rewright(tmp_path, "check-batch", "batch.json").output
    for mask, code in ([0, 1, 1, 1], "shifted_mask"), ([0, 0, 0, 1], "mask_beside_text"):
        (tmp_path / "batch.json").write_text(json.dumps(verl | {"prompts": [[1, 50]], "response_mask": [mask]}))
        said = rewright(tmp_path, "check-batch", "batch.json", "--json")
        assert {one["code"] for one in json.loads(said.output)["findings"]} == {code}


def test_texts_of_turns_that_were_cut_off_or_masked(tmp_path: Path) -> None:
    """The text of a last turn without its end marker is in a result, too; whole turns are not trained."""
    ids = [8, 9, 51, 60, 7, 61, 50, 6, 5, 51, 62, 50, 7]
    row: Row = {"prompt_ids": [1, 50], "response_ids": ids, "tokens": [f"<{one}>" for one in ids], "truncated": True}
    row["turn_texts"] = ["<8><9>", "<6><5>", "<7>"]
    assert found(tmp_path, [row | {"mask": [1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 0, 0, 1]}])["findings"] == []
    four = row | {"response_ids": [*ids, 4, 51, 50, 3, 2, 51], "turn_texts": ["<8><9>", "<6><5>", "<7><4>", "<3><2>"]}
    four |= {"tokens": [f"<{one}>" for one in four["response_ids"]], "truncated": False}
    mask = [1, 1, 1, 0, 0, 0, 0, *[0] * 9, 1, 1, 1]
    result = found(tmp_path, [four | {"mask": mask}])
    assert (result["findings"], "mask_beside_text" in result["checked"]) == ([], True)
    cut = row | {"turn_texts": ["<8><9>", "<6><5>", "<7><3><2>"], "mask": [1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1]}
    assert {code for code, _, _ in places(found(tmp_path, [cut]))} == {"mask_beside_text"}


def test_the_advantage_of_a_lost_reward_among_other_truncated_rows(tmp_path: Path) -> None:
    rewards, seen = [1.0, 0.0, 1.0, 0.5, 1.0], [1.0, 0.0, 1.0, 0.5, 0.0]
    rows: list[Row] = [
        {"group": "a", "trajectory": str(i), "prompt_ids": [5], "response_ids": [8, 9], "mask": [1, 1]}
        | {"reward": reward, "advantages": lost - 0.5, "truncated": i > 2, "last_step": step == 1}
        for i, (reward, lost) in enumerate(zip(rewards, seen, strict=True))
        for step in (0, 1)
    ]
    assert places(found(tmp_path, rows)) == {("lost_reward", 9, None)}
    for row in rows:
        row["advantages"] = row["reward"] - 0.7
    result = found(tmp_path, rows)
    assert (result["findings"], "lost_reward" in result["checked"]) == ([], True)
    few = found(tmp_path, [row for row in rows if row["trajectory"] in "034"])
    assert "lost_reward" in few["not_checked"]


def test_a_copy_of_two_values_is_known_by_them(tmp_path: Path) -> None:
    two: Row = {"group": "a", "prompt_ids": [5], "trajectory": "a", "response_ids": [8, 9], "mask": [1, 1]}
    last = two | {"last_step": True, "advantages": [0.3, -0.2]}
    longer = two | {"response_ids": [8, 9, 7, 6], "mask": [1] * 4, "last_step": False}
    other = two | {"trajectory": "b"}
    rows = [last, other | {"last_step": False, "advantages": [0.2, 0.1]}, other | last | {"trajectory": "b"}]
    assert places(found(tmp_path, [longer | {"advantages": [0.3, -0.2, 0, 0]}, *rows])) == {("step_advantages", 0, 2)}


@pytest.mark.parametrize("size", [2, -1, "x", 1.5])
def test_a_number_of_padding_rows_beyond_the_batch_is_refused(tmp_path: Path, size: Any) -> None:
    batch: Row = {"response_ids": [[8, 9], [8, 7]], "loss_masks": [[1, 1], [1, 1]], "pad_size": size}
    (tmp_path / "batch.json").write_text(json.dumps(batch))
    rewright(tmp_path, "check-batch", "batch.json").refused("expected a number of the 2 rows, less than all")


@pytest.mark.parametrize("key", ["turns", "turn_starts", "turn_ends"])
def test_positions_before_the_response_are_refused(tmp_path: Path, key: str) -> None:
    write(tmp_path / "dump.jsonl", [TURNS | {"mask": MASK, key: [[-2, 4]] if key == "turns" else [-2]}])
    rewright(tmp_path, "check-batch", "dump.jsonl").refused("dump.jsonl:1: a turn has the position -2")


def test_other_numbers_of_turns_are_named(tmp_path: Path) -> None:
    ids = TURNS["response_ids"]
    row = TURNS | {"mask": MASK, "turn_ids": [ids[:4], ids[8:]]}
    assert found(tmp_path, [row | {"turns": [[0, 4], [8, 12]]}])["findings"] == []
    assert found(tmp_path, [row | {"turns": [[0, 4], [8, 12], [20, 25]]}])["findings"] == []  # the third was cut off
    split = found(tmp_path, [row | {"turns": [[0, 2], [2, 4], [8, 12]]}])
    assert places(split) == {("turn_boundaries", 0, 0)}


def test_starts_and_ends_of_turns_are_evidence(tmp_path: Path) -> None:
    row: Row = {"response_ids": TURNS["response_ids"], "turn_starts": [0, 8], "turn_ends": [4, 12]}
    result = found(tmp_path, [row | {"mask": MASK}])
    assert (result["findings"], {"shifted_mask", "last_turn_only"} <= set(result["checked"])) == ([], True)
    assert places(found(tmp_path, [row | {"mask": [0, *MASK[:-1]]}])) == {
        ("shifted_mask", 0, 0),
        ("shifted_mask", 0, 8),
    }


def test_a_mask_that_begins_in_the_opening_of_a_turn_is_shifted(tmp_path: Path) -> None:
    """The token before the turn was not sampled, and ends the prompt, too."""
    row = TURNS | {"log_probs": SAMPLED}
    assert places(found(tmp_path, [row | {"mask": [*MASK[1:], 0]}])) == {("shifted_mask", 0, 7)}
    assert found(tmp_path, [row | {"mask": [1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0]}])["findings"] == []


def test_an_infinite_log_probability_is_above_zero(tmp_path: Path) -> None:
    arrays = {"response_ids": [TURNS["response_ids"]], "mask": [MASK], "log_probs": [[p or np.inf for p in SAMPLED]]}
    np.savez(tmp_path / "batch.npz", **{key: np.array(value) for key, value in arrays.items()})
    said = rewright(tmp_path, "check-batch", "batch.npz")
    assert (said.code, "row 0, token 4" in said.output) == (1, True)


def test_markers_that_no_row_has_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "dump.jsonl", [TURNS | {"mask": MASK}])
    for start, end in ("50", "99"), ("99", "51"), ("50,1", "51"):
        said = rewright(tmp_path, "check-batch", "dump.jsonl", "--turn-start", start, "--turn-end", end)
        said.refused("no prompt or response of dump.jsonl has these token ids")


def test_an_untrained_end_marker_was_not_rejected(tmp_path: Path) -> None:
    """Its ratio may be beyond those of the trained tokens; texts have no end markers."""
    ids = [*TURNS["response_ids"], 60, 50, 4, 3, 51]
    row: Row = {"response_ids": ids, "mask": [1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 0]}
    row |= {"turns": [[0, 4], [8, 12], [14, 17]], "turn_texts": ["<8><9><7>", "<5><6><7>", "<4><3>"]}
    row |= {"tokens": [f"<{one}>" for one in ids], "log_probs": [*SAMPLED[:-1], 0, 0, 0, -0.3, -0.2, 0]}
    row |= {"old_log_probs": [*OLD[:3], -2.0, *OLD[4:], 0, 0, -0.31, -0.21, 0]}
    assert found(tmp_path, [row])["findings"] == []
