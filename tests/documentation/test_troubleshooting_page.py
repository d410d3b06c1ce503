"""docs/troubleshooting.md: every message that it quotes is one that the product prints."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from support import in_process

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
MESSAGES = [
    message
    for line in PAGE.splitlines()
    if line.startswith("| `")
    for message in [re.match(r"\| `([^`]+(?:`[^`]+)?)` ", line + " ")]
    if message is not None
]
GAP = "\0"
RECIPE = "tasks: {format: town}\nstages: [synth, judge, score]\nmodel: {path: pico}\n"


def texts() -> list[str]:
    """Every string of the source; what an f-string fills in is one GAP."""
    found = []
    for file in (ROOT / "src" / "rewright").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"\{[^{}]*\}", GAP, node.value))
    found += [file.read_text("utf-8").replace("\\`", "`") for file in (ROOT / "viewer" / "src").glob("*.ts*")]
    return found


@pytest.fixture(scope="module")
def source() -> list[str]:
    return texts()


def quoted() -> list[str]:
    return [message[1] for message in MESSAGES]


def test_the_page_has_messages_of_every_part() -> None:
    assert len(quoted()) >= 40
    assert len(re.findall(r"^## ", PAGE, re.MULTILINE)) >= 8


@pytest.mark.parametrize("message", quoted())
def test_the_fixed_words_of_a_message_are_in_the_source(message: str, source: list[str]) -> None:
    pieces = [piece.strip(" :;,") for piece in message.split("…")]
    pieces = [piece for piece in pieces if len(piece) > 3]
    assert pieces, "a message needs words of its own"
    missing = [piece for piece in pieces if not any(piece in text for text in source)]
    assert missing == [], "the source has no such words"


PROVOKED = [
    ("unknown key …: expected one of …", ("run", "r.yaml", "synth.candidates=3", "--dry-run")),
    ("cannot read recipe …: …", ("run", "no.yaml", "--dry-run")),
    ("must be in the order in which they run, each once: …", ("run", "r.yaml", "stages=[score,synth]", "--dry-run")),
    ("the argument after … is empty: expected a value", ("run", "")),
    ("no saved model in it: expected a tokenizer and config.json", ("run", "r.yaml", "model.path=empty", "--dry-run")),
    ("base_url is missing: engine openai requires base_url", ("run", "r.yaml", "model.engine=openai", "--dry-run")),
    (
        "expected http://HOST:PORT/v1 or https://…",
        ("run", "r.yaml", "model.engine=openai", "model.base_url=localhost:8000", "--dry-run"),
    ),
    (
        "the environment variable is not set: expected the API key in it",
        (
            "run", "r.yaml", "model.engine=openai", "model.base_url=http://127.0.0.1:9/v1",
            "model.api_key_env=NO_SUCH_KEY", "--dry-run",
        ),
    ),
    ("must be a registered one, got …", ("run", "r.yaml", "tasks.judge=exactt", "--dry-run")),
    (
        "rl.temperature is 0: expected a positive number",
        ("run", "r.yaml", "stages=[rl]", "rl.temperature=0", "--dry-run"),
    ),
    (
        "expected a divisor of the … sequences of an optimizer step",
        ("run", "r.yaml", "stages=[rl]", "rl.micro_batch_size=5", "--dry-run"),
    ),
    (
        "…: expected a multiple of training.processes, …",
        ("run", "r.yaml", "stages=[sft]", "training.processes=3", "--dry-run"),
    ),
    (
        "which has no format reward and no reward model",
        ("run", "r.yaml", "stages=[rl]", "rl.backend=verl", "--dry-run"),
    ),
    ("is not a run directory: expected a recipe.yaml in it", ("view", "empty")),
    ("not a log that is known: it has the keys …", ("credit", "x.json")),
    ("the id … is already used by …; expected one of its own", ("run", "twice.yaml", "--dry-run")),
    ("…: not valid YAML: …", ("run", "broken.yaml", "--dry-run")),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "empty").mkdir()
    task = '{"id": "a", "messages": [{"role": "user", "content": "q"}], "gold": {"answers": ["1"]}}\n'
    for name, text in {
        "r.yaml": RECIPE, "broken.yaml": "tasks: [\n", "x.json": '{"x": 1}\n', "twice.jsonl": 2 * task,
        "twice.yaml": "tasks: {format: rewright, path: twice.jsonl}\nstages: [synth]\n",
    }.items():  # fmt: skip
        (folder / name).write_text(text)
    return folder


@pytest.mark.needs_torch
@pytest.mark.parametrize(("message", "command"), PROVOKED, ids=lambda value: value if isinstance(value, str) else "")
def test_a_message_of_the_page_is_what_the_command_line_says(
    message: str, command: tuple[str, ...], folder: Path
) -> None:
    assert message in quoted()
    said = in_process.rewright(folder, *command)
    assert said.code == 2
    line = said.errors.splitlines()[-1]
    assert re.search(".*".join(map(re.escape, message.split("…"))), line), line
