"""`rewright check-batch`: twelve planted misalignments are found, healthy batches raise no alarm."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewright.credit import advantages
from support.batches import PLANTED, STORED, one_row_each, step_wise, write
from support.in_process import rewright


def check(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    said = rewright(folder, "check-batch", "--json", *arguments)
    assert said.code in (0, 1, None), said.errors
    return said.code or 0, json.loads(said.output)


def named(found: dict[str, Any]) -> set[str]:
    return {one["code"] for one in found["findings"]}


def findings(folder: Path, rows: list[dict[str, Any]], *arguments: str) -> list[dict[str, Any]]:
    code, found = check(folder, str(write(folder / "dump.jsonl", rows)), *arguments)
    assert code == bool(found["findings"])
    return found["findings"]


@pytest.mark.parametrize("name", PLANTED)
def test_each_planted_misalignment_is_named_with_its_row(tmp_path: Path, name: str) -> None:
    rows, wrong = PLANTED[name]()
    found = findings(tmp_path, rows)
    assert {one["code"] for one in found} == {name}
    assert wrong in {one["row"] for one in found}
    assert all(one["what"] and one["expected"] and "dump.jsonl:" in one["place"] for one in found)


def healthy() -> dict[str, list[dict[str, Any]]]:
    rows = one_row_each()
    equal = deepcopy(rows)
    for row in equal:
        row |= {"reward": 1.0, "token_rewards": None, "advantages": 0.0}
    filtered = deepcopy(rows)
    filtered[9]["mask"] = [0] * len(filtered[9]["mask"])  # an overlong response that is left out of the loss
    one_turn_masked = deepcopy(rows)
    start, end = rows[0]["turns"][1]
    one_turn_masked[0]["mask"][start:end] = [0] * (end - start)
    bare = [{"input_ids": row["prompt_ids"] + row["response_ids"]} for row in rows]
    for row, whole in zip(bare, rows, strict=True):
        row["mask"] = [0] * len(whole["prompt_ids"]) + whole["mask"]
    padded = deepcopy(rows)
    padded.append(deepcopy(rows[9]) | {"padding": True, "mask": [0] * len(rows[9]["mask"])})
    one_turn = [
        row | {key: row[key][: row["turns"][0][1]] for key in ("response_ids", "mask", "advantages", "log_probs")}
        for row in deepcopy(rows)
    ]
    for row in one_turn:
        row |= {"turns": row["turns"][:1], "turn_ids": row["turn_ids"][:1], "token_rewards": None, "truncated": True}
    return {
        "grpo": rows,
        "dr_grpo": one_row_each(std=False),
        "leave_one_out": one_row_each(estimator="leave_one_out"),
        "matchtir": one_row_each(estimator="matchtir"),
        "delta": one_row_each(estimator="delta"),
        "fixed_horizon": one_row_each(estimator="fixed_horizon"),
        "step-wise": step_wise(),
        "equal rewards": equal,
        "one turn, cut off": one_turn,
        "a member is missing": [row for index, row in enumerate(rows) if index not in (8, 13, 14, 15)],
        "a filtered response": filtered,
        "a masked turn": one_turn_masked,
        "ids and mask": bare,
        "padding": padded,
        "log-probs of all tokens": [row | {"log_probs": [-0.5] * len(row["mask"]), "turns": None} for row in rows],
        "log-probs filled with -1": [
            row
            | {"log_probs": [p if m else -1.0 for p, m in zip(row["log_probs"], row["mask"], strict=True)]}
            | {"turns": None, "turn_ids": None}
            for row in rows
        ],
        "log-probs alone": [row | {"turns": None, "turn_ids": None} for row in rows],
        "rounded": [row | {"advantages": np.round(row["advantages"], 2).tolist()} for row in rows],
    }


@pytest.mark.parametrize("name", healthy())
def test_healthy_batches_raise_no_alarm(tmp_path: Path, name: str) -> None:
    assert findings(tmp_path, healthy()[name]) == []


def test_rollouts_of_a_run_are_healthy_and_checked(tmp_path: Path) -> None:
    code, found = check(tmp_path, str(STORED.parent))
    assert (code, found["layout"], found["rows"]) == (0, "rewright", 32)
    assert {"inverted_mask", "mask_beside_text", "lost_reward", "mixed_prompts"} <= set(found["checked"])


def test_a_check_without_its_keys_is_not_passed(tmp_path: Path) -> None:
    rows = [{"response_ids": [1, 2, 3], "mask": [1, 1, 1], "note": "x", "group": None}]
    code, found = check(tmp_path, str(write(tmp_path / "dump.jsonl", rows)))
    assert (code, found["checked"]) == (0, [])
    assert len(found["not_checked"]) == 13
    assert found["ignored_keys"] == ["note"]
    assert "needs group" in found["not_checked"]["mixed_prompts"]
    text = rewright(tmp_path, "check-batch", "dump.jsonl")
    assert "single_groups: not checked: needs group" in text.output
    assert "0 checks made, 13 not: 0 findings" in text.output


@pytest.mark.parametrize("name", ["inverted_mask", "shifted_mask", "last_turn_only"])
@pytest.mark.parametrize("evidence", ["turns", "turn_ids", "log_probs", "prompt_ids"])
def test_every_evidence_shows_a_wrong_mask(tmp_path: Path, name: str, evidence: str) -> None:
    rows, _ = PLANTED[name]()
    kept = {"prompt_ids", "response_ids", "mask", evidence}
    rows = [{key: value for key, value in row.items() if key in kept} for row in rows if len(row["turns"]) == 3]
    assert {one["code"] for one in findings(tmp_path, rows)} == {name}


def test_token_ids_of_a_template_mark_the_turns(tmp_path: Path) -> None:
    ids = [5, 6, 9, 3, 4, 9, 1, 2, 7, 8, 9]  # turn, <9>, tool result, <9>, <1 2>, turn, <9>
    right = [1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1]
    row = {"prompt_ids": [1, 2], "response_ids": ids, "mask": right}
    markers = ("--turn-start", "1,2", "--turn-end", "9")
    assert findings(tmp_path, [row], *markers) == []
    late = findings(tmp_path, [row | {"mask": [0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1]}], *markers)
    assert [(one["code"], one["token"]) for one in late] == [("shifted_mask", 0), ("shifted_mask", 8)]
    twice = row | {"response_ids": [5, 6, 1, 2, 3, 9, 1, 2, 7, 8, 9], "mask": [1] * 11}
    assert "turn_boundaries" in {one["code"] for one in findings(tmp_path, [twice], *markers)}


def test_a_mask_is_compared_without_padding(tmp_path: Path) -> None:
    """TRL's rows end with a turn; after it there is padding, in which a shifted mask has no token."""
    ids, real = [5, 6, 9, 3, 4, 1, 2, 7, 8, 9, 0, 0], [1] * 10 + [0] * 2
    row = {"prompt_ids": [1, 2], "response_ids": ids, "real": real, "turns": [[0, 3], [7, 10]]}
    assert findings(tmp_path, [row | {"mask": [1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 0, 0]}]) == []
    late = findings(tmp_path, [row | {"mask": [0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0]}])
    assert [(one["code"], one["token"]) for one in late] == [("shifted_mask", 0), ("shifted_mask", 7)]
    two_early = findings(tmp_path, [row | {"mask": [1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0]}])
    assert [(one["code"], one["token"]) for one in two_early] == [("mask_beside_text", 5)]


@pytest.mark.parametrize("side", ["left", "right"])
def test_skyrl_s_tensors_are_read_in_their_columns(tmp_path: Path, side: str) -> None:
    """Sequences are padded at the left; a prompt reaches into the columns of shorter responses."""
    batch = {
        "sequences": [[0, 1, 2, 5, 6, 3, 7], [0, 0, 0, 1, 2, 5, 7]],
        "attention_mask": [[0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1]],
        "response_mask": [[1, 1, 1, 1], [0, 0, 1, 1]],
        "loss_mask": [[1, 1, 0, 1], [0, 0, 1, 1]],
        "rewards": [[0, 0, 0, 1.0], [0, 0, 0, 0.0]],
        "advantages": [[0.7, 0.7, 0.7, 0.7], [0, 0, -0.7, -0.7]],
        "turns": [[[0, 2], [3, 4]], [[0, 2]]],
        "uids": ["a", "a"],
        "is_last_step": [True, True],
        "pad_size": 0,
    }
    (tmp_path / "batch.json").write_text(json.dumps(batch))
    code, found = check(tmp_path, "batch.json")
    assert (code, found["layout"], found["ignored_keys"]) == (0, "skyrl", [])
    assert {"mixed_prompts", "shifted_mask", "lost_reward"} <= set(found["checked"])
    batch["rewards"] = [[0, 0, 0, 1.0], [1.0, 0, 0, 0]] if side == "left" else [[0, 0, 0, 1.0], [0, 0, 0, 0]]
    batch["loss_mask"] = [[1, 1, 0, 1], [0, 0, 0, 1]]
    (tmp_path / "batch.json").write_text(json.dumps(batch))
    places = {(one["code"], one["row"], one["token"]) for one in check(tmp_path, "batch.json")[1]["findings"]}
    assert places == {("shifted_mask", 1, 2), *([("lost_reward", 1, 0)] if side == "left" else [])}


def test_tokens_that_were_rejected_one_by_one_are_no_fault(tmp_path: Path) -> None:
    """As verl's rollout correction masks them, by the ratio of both log-probabilities."""
    row = {
        "prompts": [[1, 2]],
        "responses": [[5, 6, 7, 8]],
        "attention_mask": [[1, 1, 1, 1, 1, 1]],
        "response_mask": [[0, 1, 1, 1]],
        "rollout_log_probs": [[-0.5, -0.5, -0.5, -0.5]],
        "old_log_probs": [[-3.0, -0.4, -0.5, -0.6]],
    }
    (tmp_path / "batch.json").write_text(json.dumps(row))
    assert check(tmp_path, "batch.json")[1]["findings"] == []
    row["old_log_probs"] = [[-0.5, -0.4, -0.5, -0.6]]
    (tmp_path / "batch.json").write_text(json.dumps(row))
    assert named(check(tmp_path, "batch.json")[1]) == {"shifted_mask"}
    del row["response_mask"]  # verl computes it from the attention mask
    (tmp_path / "batch.json").write_text(json.dumps(row))
    assert check(tmp_path, "batch.json")[0] == 0


def test_a_wrong_advantage_shows_a_reward_lost_at_the_limit(tmp_path: Path) -> None:
    rewards, seen = [1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 0.0]
    credited = advantages([[one] for one in seen], [0] * 4, estimator="grpo")
    rows = [
        {"group": "a", "response_ids": [1, 2], "mask": [1, 1], "reward": reward, "advantages": float(value[0])}
        | {"truncated": index == 3}
        for index, (reward, value) in enumerate(zip(rewards, credited, strict=True))
    ]
    (one,) = findings(tmp_path, rows)
    assert (one["code"], one["row"], one["expected"]) == ("lost_reward", 3, "reward 1")


def tensors(rows: list[dict[str, Any]], key: str, fill: float = 0) -> list[list[float]]:
    width = max(len(row[key]) for row in rows)
    return [row[key] + [fill] * (width - len(row[key])) for row in rows]


def verl(rows: list[dict[str, Any]]) -> dict[str, Any]:
    prompt = max(len(row["prompt_ids"]) for row in rows)
    left = [[0] * (prompt - len(row["prompt_ids"])) + [1] * len(row["prompt_ids"]) for row in rows]
    real = tensors([{"real": [1] * len(row["mask"])} for row in rows], "real")
    return {
        "responses": tensors(rows, "response_ids"),
        "response_mask": tensors(rows, "mask"),
        "attention_mask": [a + b for a, b in zip(left, real, strict=True)],
        "prompts": [[0] * (prompt - len(row["prompt_ids"])) + row["prompt_ids"] for row in rows],
        "token_level_scores": tensors(rows, "token_rewards", 0.0),
        "token_level_rewards": tensors(rows, "token_rewards", 0.0),
        "advantages": tensors(rows, "advantages", 0.0),
        "rollout_log_probs": tensors(rows, "log_probs", 0.0),
        "uid": [row["group"] for row in rows],
    }


def trl(rows: list[dict[str, Any]]) -> dict[str, Any]:
    prompt = max(len(row["prompt_ids"]) for row in rows)
    return {
        "prompt_ids": [[0] * (prompt - len(row["prompt_ids"])) + row["prompt_ids"] for row in rows],
        "prompt_mask": [[0] * (prompt - len(row["prompt_ids"])) + [1] * len(row["prompt_ids"]) for row in rows],
        "completion_ids": tensors(rows, "response_ids"),
        "completion_mask": tensors([{"real": [1] * len(row["mask"])} for row in rows], "real"),
        "tool_mask": tensors(rows, "mask", 1),
        "advantages": [next((a for a in row["advantages"] if a), 0.0) for row in rows],
        "sampling_per_token_logps": tensors(rows, "log_probs", 0.0),
        "num_items_in_batch": 7,
        "num_generations": 4,
    }


def skyrl(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "prompt_token_ids": [row["prompt_ids"] for row in rows],
        "response_ids": [row["response_ids"] for row in rows],
        "rewards": [row["token_rewards"] for row in rows],
        "loss_masks": [row["mask"] for row in rows],
        "rollout_logprobs": [row["log_probs"] for row in rows],
        "stop_reasons": ["length" if row["truncated"] else "stop" for row in rows],
        "trajectory_ids": [{"instance_id": row["group"], "repetition_id": i % 4} for i, row in enumerate(rows)],
        "is_last_step": [True] * len(rows),
        "advantages": [row["advantages"] for row in rows],
        "rollout_metrics": None,
    }


@pytest.mark.parametrize("layout", [verl, trl, skyrl])
def test_layouts_of_other_trainers(tmp_path: Path, layout: Any) -> None:
    path = tmp_path / "batch.json"
    path.write_text(json.dumps(layout(one_row_each())))
    code, found = check(tmp_path, str(path))
    assert (code, found["layout"], found["rows"]) == (0, layout.__name__, 16)
    assert {"mixed_prompts", "shifted_mask"} <= set(found["checked"])
    assert found["ignored_keys"] == []
    for name in ("inverted_mask", "shifted_mask", "mixed_prompts", "masked_log_probs", "last_turn_only"):
        rows, _ = PLANTED[name]()
        if name == "mixed_prompts":  # TRL's groups are those of the order
            rows[0], rows[5] = rows[5], rows[0]
        path.write_text(json.dumps(layout(rows)))
        assert named(check(tmp_path, str(path), "--from", layout.__name__)[1]) == {name}


@pytest.mark.parametrize("name", ["advantages", "old_log_probs"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_makes_the_loss_nan_is_named_at_trained_tokens(tmp_path: Path, name: str, value: float) -> None:
    rows = one_row_each()
    masked, trained = rows[2]["mask"].index(0), rows[2]["mask"].index(1)
    for row in rows:
        row["old_log_probs"] = [-0.5] * len(row["mask"])
    rows[2][name] = list(np.full(len(rows[2]["mask"]), rows[2][name]))
    rows[2][name][masked] = float("nan")
    assert findings(tmp_path, rows) == []
    rows[2][name][trained] = value
    (found,) = (one for one in findings(tmp_path, rows) if one["code"] == "not_finite")
    assert (found["row"], found["token"], found["what"][: len(name)]) == (2, trained, name)


def test_arrays_and_parquet_hold_the_same(tmp_path: Path) -> None:
    rows, wrong = PLANTED["shifted_mask"]()
    np.savez(tmp_path / "batch.npz", **{key: np.array(value) for key, value in verl(rows).items()})
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "batch.parquet")
    for file in ("batch.npz", "batch.parquet"):
        _, found = check(tmp_path, file)
        assert named(found) == {"shifted_mask"}
        assert wrong in {one["row"] for one in found["findings"]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"response_ids": [1, 2], "mask": [1]}, "mask has 1 values: expected 2"),
        ({"response_ids": [1, 2], "mask": [1, 5]}, "other values than 0 and 1"),
        ({"response_ids": [1], "group": "a"}, "of no known layout"),
        ({"mask": [1]}, "no response_ids or input_ids"),
        ({"response_ids": ["x"], "mask": [1]}, "response_ids"),
        ({"response_ids": [1], "mask": [1], "advantages": [1, 2]}, "advantages has 2 values: expected 1"),
        ({"responses": [[1], [2]], "response_mask": [[1]]}, "response_mask has 1 entries: expected 2"),
        ([1], "is a list, expected an object"),
        ({"responses": 5, "response_mask": 1}, "not a row of layout verl: expected lists of numbers"),
        ({"responses": [1], "response_mask": [1], "prompts": 7}, "not a row of layout verl"),
        ({"completion_ids": [1], "completion_mask": [None], "tool_mask": [1]}, "not a row of layout trl"),
        ({"completion_ids": [1], "completion_mask": [1], "num_generations": "two"}, "num_generations is 'two'"),
        ({"completion_ids": [1], "completion_mask": [1], "num_generations": -1}, "num_generations is '-1'"),
        ({"sequences": [1, 2], "loss_mask": [1], "response_mask": ["x"]}, "not a row of layout skyrl"),
        ({"sequences": [1, 2], "loss_mask": [1], "response_mask": [1], "turns": [5]}, "not a row of layout skyrl"),
    ],
)
def test_mistakes_of_a_file_are_one_line(tmp_path: Path, content: Any, words: str) -> None:
    (tmp_path / "dump.jsonl").write_text(json.dumps(content) + "\n")
    said = rewright(tmp_path, "check-batch", "dump.jsonl")
    said.refused(words)
    said.refused("dump.jsonl:1")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", responses=np.array([[1], None], dtype=object))
    (tmp_path / "batch.pt").write_bytes(b"\x80\x04.")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04")
    rewright(tmp_path, "check-batch", "objects.npz").refused("not a .npz file of plain arrays")
    rewright(tmp_path, "check-batch", "batch.pt").refused("is a pickle")
    rewright(tmp_path, "check-batch", "broken.npz").refused("not a .npz file of plain arrays")
    np.savez(tmp_path / "empty.npz", responses=np.zeros((0, 4), dtype=int), response_mask=np.zeros((0, 4)))
    rewright(tmp_path, "check-batch", "empty.npz").refused("empty.npz: has no rows")
    rewright(tmp_path, "check-batch", "missing.jsonl").refused("no such file")
    rewright(tmp_path, "check-batch", "missing.jsonl", "--turn-end", "1").refused("given together")
