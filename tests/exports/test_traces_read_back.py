"""ATIF and verifiers' traces: what Rewright writes, its own readers give back, tokens, masks and rewards included."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rewright.cli.main import app
from rewright.core.records import Trajectory
from rewright.core.storage import encode_line, read_jsonl
from rewright.dialects import Hermes
from rewright.exports.atif import row as atif_row
from rewright.exports.verifiers import row as verifiers_row
from support.hard_trajectories import attempt, hard, made_run, trajectories, verdict

pytest.importorskip("rewright.importers.atif")  # the readers of logs

from rewright.importers.attempts import to_trajectory
from rewright.importers.log_files import read_conversations

STORED = Path(__file__).parents[1] / "pipeline/stored_runs/format1"
FORMATS = ("atif", "verifiers")


def rewright(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def tokens(one: Trajectory, name: str) -> Any:
    """Tokens, mask and log-probabilities. In ATIF the tokens behind the last turn are in `extra`, which is not read."""
    if one.prompt_ids is None:
        return None
    behind = len(one.turns[-1].suffix_ids) if name == "atif" else 0
    ids, mask = one.token_ids, one.mask
    return ids[: len(ids) - behind], mask[: len(mask) - behind], [turn.log_probs for turn in one.turns]


def calls(one: Trajectory) -> Any:
    """The calls of every turn; of a malformed one, that it is malformed."""
    return [[(call.name, call.arguments) if call.error is None else None for call in turn.calls] for turn in one.turns]


def results(one: Trajectory) -> Any:
    return [[result.content for result in turn.results] for turn in one.turns]


def follow_ups(one: Trajectory) -> Any:
    return [turn.follow_up and [said["content"] for said in turn.follow_up.messages] for turn in one.turns]


def same(found: Trajectory, one: Trajectory, name: str) -> None:
    assert calls(found) == calls(one)
    assert results(found) == results(one)
    assert tokens(found, name) == tokens(one, name)
    asked = [turn.follow_up and [message["content"] for message in turn.follow_up.messages] for turn in one.turns]
    assert asked == [
        turn.follow_up and [message["content"] for message in turn.follow_up.messages] for turn in found.turns
    ]


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=150, deadline=None)
@given(drawn=st.lists(trajectories(), min_size=1, max_size=3))
def test_any_trajectory_comes_back_with_its_tokens_calls_results_rewards_and_masks(
    name: str, drawn: list[Trajectory]
) -> None:
    rows = [
        atif_row(attempt(one), "run") if name == "atif" else verifiers_row(attempt(one), "run", 0.0) for one in drawn
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "traces.jsonl"
        path.write_bytes(b"".join(map(encode_line, rows)))
        found = list(read_conversations(path))
    assert len(found) == len(drawn)
    for conversation, one in zip(found, drawn, strict=True):
        same(to_trajectory(conversation, "task", 0, Hermes()), one, name)
        expected = verdict(one)
        assert conversation.columns.get("reward") == (None if expected is None else expected.outcome)
        assert conversation.group == one.task_id
        assert conversation.id == one.id


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_comes_back_through_export_and_import(tmp_path: Path, name: str) -> None:
    shutil.copytree(STORED, tmp_path / "stored")
    rewright("export", tmp_path / "stored", tmp_path / "out", "--format", name)
    for file in ("trajectories", "rollouts"):
        path = tmp_path / "out" / (f"{file}.atif.jsonl" if name == "atif" else f"{file}/traces.jsonl")
        rewright("import", path, "--run", tmp_path / file, "dialect=hermes")
        given = {one.id: one for _, one in read_jsonl(STORED / f"{file}.jsonl", Trajectory)}
        found = [one for _, one in read_jsonl(tmp_path / file / "trajectories.jsonl", Trajectory)]
        assert {one.id for one in found} == set(given)
        for one in found:
            same(one, given[one.id], name)
            assert (one.task_id, one.answer) == (given[one.id].task_id, given[one.id].answer)


@pytest.mark.parametrize("name", FORMATS)
def test_the_hard_trajectories_come_back_through_export_and_import(tmp_path: Path, name: str) -> None:
    run = made_run(tmp_path, hard())
    rewright("export", run, tmp_path / "out", "--format", name)
    file = "trajectories.atif.jsonl" if name == "atif" else "trajectories/traces.jsonl"
    rewright("import", tmp_path / "out" / file, "--run", tmp_path / "back", "dialect=hermes")
    given = {one.id: one for one in hard() if one.turns}
    found = [one for _, one in read_jsonl(tmp_path / "back/trajectories.jsonl", Trajectory)]
    assert [one.id for one in found] == list(given)
    for one in found:
        same(one, given[one.id], name)
