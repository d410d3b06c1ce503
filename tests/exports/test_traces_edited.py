"""ATIF and verifiers' traces of ours that other programs have rewritten or edited: what is visible wins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rewright.core.records import Gold, Provenance, ToolCall, ToolResult, ToolSpec, Trajectory, Turn
from rewright.dialects import get_dialect
from support import peers
from support.exporting import export, lines
from support.hard_trajectories import BROKEN, TASK, hard, made_run, one, turn
from support.importing import imported

FILES = {"atif": "trajectories.atif.jsonl", "verifiers": "trajectories/traces.jsonl"}
FIND = ToolCall("find", {"name": "Ann"}, '{"name": "find", "arguments": {"name": "Ann"}}')
GIVEN = one(
    "edited",
    turn("<think>Look.</think>Well.", (FIND, BROKEN[0]), (ToolResult("Rome", None, 0.5), ToolResult("no", "format: x")),
         token_ids=(3, 4), log_probs=(-0.5, -0.25), suffix_ids=(5, 6)),
    turn("<think>Found.</think><answer>Rome</answer>", token_ids=(7, 8), log_probs=(-0.1, -0.2), stop="stop"),
    prompt_ids=(1, 2), provenance=Provenance(model="m", seed=3, tokenizer="abc"), seconds=2.0,
)  # fmt: skip

REWRITE = """
import json, sys
from pathlib import Path
from atif import Trajectory
from verifiers.v1.trace import WireTrace
from verifiers.v1.utils.trace_store import read_episodes, write_episode
folder = Path(sys.argv[1])
path = folder / "trajectories.atif.jsonl"
rows = [Trajectory.model_validate_json(line) for line in path.read_text().split("\\n") if line]
path.write_text("".join(row.model_dump_json() + "\\n" for row in rows))
path = folder / "trajectories"
episodes = read_episodes(path, WireTrace)
(path / "traces.jsonl").unlink()
for episode in episodes:
    write_episode(path, episode)
"""


@peers.needs_peers
def test_what_the_libraries_of_atif_and_verifiers_read_and_wrote_again_is_the_same(tmp_path: Path) -> None:
    given = [trajectory for trajectory in hard() if trajectory.turns and trajectory.id != "synth/follow-up"]
    run = made_run(tmp_path, given)
    for name in FILES:
        assert export(run, tmp_path / "out", name).exit_code == 0
    before = [(tmp_path / "out" / file).read_bytes() for file in FILES.values()]
    peers.run(REWRITE, tmp_path / "out")
    for name, file in FILES.items():
        assert (tmp_path / "out" / file).read_bytes() not in before
        expected = [rounded(trajectory) for trajectory in given] if name == "verifiers" else given
        assert imported(tmp_path / "out" / file, tmp_path / name) == expected


def rounded(one: Trajectory) -> Trajectory:
    """With log-probabilities of four digits, which is what verifiers writes for its nodes."""
    if one.prompt_ids is None:
        return one
    turns = tuple(
        msgspec.structs.replace(turn, log_probs=turn.log_probs and tuple(round(value, 4) for value in turn.log_probs))
        for turn in one.turns
    )
    return msgspec.structs.replace(one, turns=turns)


def atif_steps(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for step in row["steps"] if step["source"] == "agent" and not step.get("is_copied_context")]


def nodes(row: dict[str, Any]) -> list[dict[str, Any]]:
    found = row["traces"][0]["nodes"]
    return found[next(index for index, node in enumerate(found) if node["sampled"]) :]


def kept(row: dict[str, Any]) -> dict[str, Any]:
    return row["extra"]["rewright"] if "extra" in row else row["traces"][0]["info"]["rewright"]


def edit_text(row: dict[str, Any]) -> None:
    if "steps" in row:
        atif_steps(row)[1]["message"] = "<answer>Oslo</answer>"
    else:
        nodes(row)[-1]["message"]["content"] = "<answer>Oslo</answer>"


def edit_arguments(row: dict[str, Any]) -> None:
    if "steps" in row:
        atif_steps(row)[0]["tool_calls"][0]["arguments"] = {"name": "Bo"}
    else:
        nodes(row)[0]["message"]["tool_calls"][0]["arguments"] = '{"name": "Bo"}'


def edit_result(row: dict[str, Any]) -> None:
    if "steps" in row:
        atif_steps(row)[0]["observation"]["results"][0]["content"] = "Oslo"
    else:
        nodes(row)[1]["message"]["content"] = "Oslo"


def edit_prompt(row: dict[str, Any]) -> None:
    if "steps" in row:
        row["steps"][0]["message"] = "Be very brief."
    else:
        row["traces"][0]["nodes"][0]["message"]["content"] = "Be very brief."


def drop_last(row: dict[str, Any]) -> None:
    (row["steps"] if "steps" in row else row["traces"][0]["nodes"]).pop()


def drop_tokens(row: dict[str, Any]) -> None:
    for step in row.get("steps", ()):
        step.get("metrics", {}).pop("completion_token_ids", None)
    for node in [] if "steps" in row else row["traces"][0]["nodes"]:
        for key in ("token_ids", "mask", "logprobs"):
            node.pop(key, None)


def import_edited(tmp_path: Path, name: str, edit: Callable[[dict[str, Any]], None], *arguments: str) -> Trajectory:
    run = made_run(tmp_path, [GIVEN])
    assert export(run, tmp_path / "out", name).exit_code == 0
    path = tmp_path / "out" / FILES[name]
    (row,) = lines(path)
    edit(row)
    path.write_text(json.dumps(row))
    (found,) = imported(path, tmp_path / "back", *arguments)
    return found


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("edit", [edit_text, edit_arguments, edit_result, edit_prompt, drop_last, drop_tokens])
def test_an_edited_field_wins_and_the_token_ids_are_left_out(
    tmp_path: Path, name: str, edit: Callable[[dict[str, Any]], None]
) -> None:
    found = import_edited(tmp_path, name, edit)
    first, *rest = found.turns
    assert (found.prompt_ids, found.provenance.tokenizer) == (None, None)
    assert {(one.token_ids, one.log_probs, one.suffix_ids) for one in found.turns} == {(None, None, ())}
    assert first.calls[0].arguments == {"name": "Bo" if edit is edit_arguments else "Ann"}
    assert ('"Bo"' in first.text) == (edit is edit_arguments)
    assert first.results[0].content == ("Oslo" if edit is edit_result else "Rome")
    if edit not in (edit_arguments, edit_result):  # the turn itself was not edited
        assert first == msgspec.structs.replace(GIVEN.turns[0], token_ids=None, log_probs=None, suffix_ids=())
    if edit is drop_last:
        assert (rest, found.answer, found.stop_reason) == ([], None, "no_answer")
    else:
        assert found.answer == ("Oslo" if edit is edit_text else "Rome")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("turns", [1, None]),
        ("turns", [{"text": 1, "digest": "x"}, {"text": "<answer>Oslo</answer>", "digest": 0}]),
        ("turns", {"0": {"text": "x"}}),
        ("stop_reason", "bored"),
        ("credit", {"turn_rewards": "many"}),
        ("seconds", "long"),
        ("prompt", None),
        ("prompt_count", 5),
    ],
)
def test_what_is_kept_in_another_form_is_ignored(tmp_path: Path, name: str, key: str, value: Any) -> None:
    found = import_edited(tmp_path, name, lambda row: kept(row).update({key: value}))
    assert [turn.results[0].content for turn in found.turns if turn.results] == ["Rome"]
    assert (found.answer, found.stop_reason, found.provenance.tokenizer) == ("Rome", "answered", None)


@pytest.mark.parametrize("name", FILES)
def test_a_kept_text_that_says_something_else_than_the_message_is_ignored(tmp_path: Path, name: str) -> None:
    def hide(row: dict[str, Any]) -> None:
        kept(row)["turns"][1]["text"] = "<answer>Oslo</answer>"

    assert import_edited(tmp_path, name, hide).turns[1].text == "<think>\nFound.\n</think>\n\n<answer>Rome</answer>"


@pytest.mark.parametrize("name", FILES)
def test_the_dialect_of_a_file_is_no_code_to_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = import_edited(tmp_path, name, lambda row: kept(row).update(dialect="evil_module:DIALECT"), "dialect=hermes")
    assert found.turns[0].calls[0].arguments == {"name": "Ann"}


@pytest.mark.parametrize("name", FILES)
def test_another_dialect_is_written_from_the_visible_fields(tmp_path: Path, name: str) -> None:
    found = import_edited(tmp_path, name, lambda row: None, "dialect=llama")
    assert "<tool_call>" not in found.turns[0].text
    assert found.turns[0].calls[0].arguments == {"name": "Ann"}
    assert found.provenance.tokenizer is None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("dialect", ["tags", "chat", "llama"])
def test_runs_of_other_dialects_come_back_whole_without_naming_the_dialect(
    tmp_path: Path, name: str, dialect: str
) -> None:
    written = get_dialect(dialect)
    texts = {
        "tags": ("I look: <search> Ann </search>", "<search></search>", "<answer>Rome</answer>"),
        "chat": ("A <tool_call> of mine.", "<search>Ann</search> <result>", "Rome"),
        "llama": (written.write("I look:", [FIND]), "<tool_call>{}</tool_call>", "<answer>Rome</answer>"),
    }[dialect]
    turns = []
    for text in texts:
        calls = written.parse(text).calls or ((FIND,) if dialect == "chat" and text != "Rome" else ())
        turns.append(Turn(text=text, calls=calls, results=tuple(ToolResult("<result>Rome") for _ in calls)))
    given = one("dialect", *turns)
    schema = {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}
    task = (
        msgspec.structs.replace(TASK, tools=(ToolSpec(schema=schema),), gold=Gold(answers=("Rome",)))
        if dialect == "tags"
        else TASK
    )
    run = made_run(tmp_path, [given], task=task, dialect=dialect)
    assert export(run, tmp_path / "out", name).exit_code == 0
    assert imported(tmp_path / "out" / FILES[name], tmp_path / "back") == [given]
