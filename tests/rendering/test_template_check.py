"""`rewright validate --model`: what a chat template does that our own loop does not mind and others trip over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rewright.cli import main as cli
from rewright.dialects import get_dialect
from rewright.rendering.renderer import Renderer
from rewright.rendering.template_check import prompt_problem, template_findings
from rewright.tasks.validation import validate_tasks
from rewright.tasks.worlds.town import generate
from support.small_tokenizers import CHATML, QWEN_TAGS, chat_tokenizer, pico_tokenizer

trl = pytest.importorskip("trl")
TEMPLATES = Path(trl.__file__).parent / "chat_templates"
TASK = next(generate("train", 1))
REWRITES = "{{ tools or '' }}{# tool #}" + CHATML.replace(
    "message['content']",
    "(message['content'].split('</think>')[-1] if 'tool_calls' in message else message['content'])",
)
"""Takes everything, and drops every thought."""


def renderer_of(name: str, dialect: str = "hermes") -> Renderer:
    if name == "pico":
        return Renderer(pico_tokenizer(), get_dialect(dialect))
    template = {"chatml": CHATML, "rewrites": REWRITES}.get(name) or (TEMPLATES / f"{name}.jinja").read_text("utf-8")
    return Renderer(chat_tokenizer(template, added=[*QWEN_TAGS, "<end_of_turn>"]), get_dialect(dialect))


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("pico", []),
        ("qwen3", []),
        ("qwen2_5", []),
        ("qwen3_instruct_2507", []),
        ("chatml", ["template-tools", "template-results"]),
        ("gemma", ["template-system", "template-tools", "template-results"]),
        ("llama3_1", ["template-calls", "template-prefix"]),
        ("qwen3_5_nothink", ["template-calls"]),
        ("rewrites", ["template-prefix"]),
    ],
)
def test_what_is_said_of_a_template(name: str, kinds: list[str]) -> None:
    found = list(template_findings(renderer_of(name), TASK))
    assert [one.kind for one in found] == kinds


def test_thoughts_that_are_dropped_when_the_user_speaks_again() -> None:
    assert list(template_findings(renderer_of("qwen3"), TASK)) == []
    (found,) = template_findings(renderer_of("qwen3"), TASK, follow_ups=True)
    assert found.kind == "template-prefix"
    assert "it removes thoughts after a further user message" in found.message
    assert list(template_findings(renderer_of("qwen3", "tags"), TASK, follow_ups=True)) == []


def test_a_task_that_the_template_refuses_is_an_error_of_its_row() -> None:
    short = "{% if messages[-1].content | length > 60 %}{{ raise_exception('too long') }}{% endif %}" + CHATML
    renderer = Renderer(chat_tokenizer(short), get_dialect("hermes"))
    tasks = list(generate("train", 30))
    long = [row for row, task in enumerate(tasks) if len(str(task.messages[-1]["content"])) > 60]
    found = validate_tasks(tasks, execute=False, renderer=renderer).findings
    assert [one.row for one in found if one.kind == "template-refuses"] == long != []
    assert all(one.severity == "error" and "too long" in one.message for one in found if one.row in long)
    assert {one.kind for one in found if one.row not in long} == {"template-tools", "template-results"}
    assert "too long" in str(prompt_problem(renderer, tasks[long[0]]))


def test_the_command_line_names_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat_tokenizer(CHATML).save_pretrained(tmp_path / "model")
    (tmp_path / "t.jsonl").write_text(
        json.dumps({"id": "a", "messages": [{"role": "user", "content": "q"}], "gold": {"answers": ["1"]}}) + "\n"
    )
    command = ["validate", str(tmp_path / "t.jsonl"), "--model", str(tmp_path / "model"), "--json"]
    assert not cli.app(command, standalone_mode=False)
    captured = capsys.readouterr()
    assert "warning: row 0 (a): the chat template: it does not support tool messages" in captured.err
    assert json.loads(captured.out) == {"rows": 1, "tools": 0, "errors": 0, "findings": {"template-results": 1}}
