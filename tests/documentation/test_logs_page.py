"""The commands of docs/logs.md, as they stand there, on 20 chat logs and a served model that answers in prose."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from support.chat_server import calls, chat_server, results_of, said_by_user, says
from support.in_process import rewright
from support.served import served
from support.static_page import page_data

PAGE = (Path(__file__).parents[2] / "docs" / "logs.md").read_text("utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
CITIES = ("Paris", "Lyon", "Nice", "Lille", "Brest", "Metz", "Nantes", "Rennes", "Tours", "Dijon")


def walk(block: str, address: str) -> list[list[str]]:
    """The commands of a block, with the server and the name of this model in the place of those of the page."""
    lines = block.replace("\\\n", " ").splitlines()
    parts = [shlex.split(line, comments=True) for line in lines]
    place = {
        "model.base_url=http://127.0.0.1:8000/v1": f"model.base_url={address}/v1",
        "model.path=NAME": "model.path=m",
    }
    return [[place.get(part, part) for part in words] for words in parts if words]


def logs() -> list[dict[str, Any]]:
    """Two attempts at each of ten questions, as openai dumps messages: one is right, one does without the tool."""
    rows = []
    for number, city in enumerate(CITIES):
        asked = {"role": "user", "content": f"How warm is {city}?"}
        called = {"role": "assistant", "refusal": None, "annotations": [], **calls("get_weather", city=city)}
        result = {"role": "tool", "tool_call_id": "c1", "content": f"{10 + number} degrees"}
        gold = {"answer": str(10 + number), "gold_calls": [{"name": "get_weather", "arguments": {"city": city}}]}
        right = {"role": "assistant", **says(f"It is {10 + number} degrees in {city}.")}
        guessed = {"role": "assistant", **says("It is probably 40 degrees.")}
        rows += [{"messages": [asked, called, result, right], **gold}, {"messages": [asked, guessed], **gold}]
    return rows


def reply(body: dict[str, Any]) -> dict[str, Any]:
    """Looks up what it is asked, and says it in prose."""
    if results := results_of(body):
        return says(f"The answer is {results[-1].split()[0]}.")
    found = re.search(r"How warm is (\w+)\?", said_by_user(body))
    assert found, body
    return calls("get_weather", city=found[1])


@pytest.mark.parametrize(("block", "run"), [(BLOCKS[0], "runs/mine"), (BLOCKS[1], "runs/short")])
def test_logs_are_credited_repaired_exported_and_viewed_in_eight_commands(tmp_path: Path, block: str, run: str) -> None:
    rows = logs()
    assert len(rows) == 20
    (tmp_path / "logs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with served(lambda: chat_server(reply)) as address:
        commands = walk(block, address)
        assert len(commands) <= 8
        served_until_ctrl_c = {"view": ["--static", "page.html"]}
        said = [rewright(tmp_path, *words[1:], *served_until_ctrl_c.get(words[1], [])) for words in commands]
    assert [one.code for one in said] == [0] * len(commands), said
    printed = "\n".join(one.output for one in said)
    assert "candidates 20, kept 10, low 0, wrong 10, repaired 10, hard 0, pairs 10" in printed
    assert "synth" not in printed, "the import generated nothing that costs"
    credited = next(one.output for words, one in zip(commands, said, strict=True) if words[1] == "credit")
    assert len(re.findall(r"^repair/\S+ +1\.000 +2\.000 +1\.000 1\.000", credited, re.MULTILINE)) == 10
    shown = page_data(tmp_path / "page.html")["runs"][0]["rows"]
    assert "How warm is Paris?" in {row["prompt"] for row in shown}
    written = {path.name for folder in ("out", "sets", "traces") for path in (tmp_path / folder).glob("*")}
    assert {"sft.jsonl", "preferences.jsonl"} <= written
    if run == "runs/short":
        assert {"trajectories.atif.jsonl", "trajectories.eval"} <= written


def test_the_log_on_the_page_is_credited(tmp_path: Path) -> None:
    row = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0])
    (tmp_path / "logs.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "gold.json").write_text(json.dumps(row["gold_calls"]))
    command = shlex.split(BLOCKS[2], comments=True)
    said = rewright(tmp_path, *command[1:])
    assert (said.code, said.output.splitlines()[1].split()[:3]) == (0, ["row", "0", "-"]), said
