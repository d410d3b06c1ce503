"""A server whose chat template drops the text beside the calls: noticed by the counts of its prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from rewright.pipeline.run_directory import Run
from support import in_process
from support.chat_server import Body, calls, chat_server, results_of, says
from support.served import served
from support.small_tokenizers import chat_tokenizer

REMARK = "I do not know her age, so I look up her record before I say anything about it."
TASK = {
    "id": "t",
    "messages": [{"role": "user", "content": "How old is Ada?"}],
    "tools": [
        {
            "schema": {
                "type": "function",
                "function": {
                    "name": "age",
                    "parameters": {"type": "object", "properties": {"name": {"type": "string"}}},
                },
            },
            "source": "def age(name):\n    return 36\n",
        }
    ],
    "gold": {"answers": ["36"]},
}
RECIPE = (
    "stages: [synth, judge]\nsandbox: process\nsynth: {{n: 2}}\ntasks: t.jsonl\n"
    "model: {{path: m, engine: openai, base_url: '{url}/v1', mode: chat}}\n"
)
TEMPLATE = """\
{{%- for tool in tools or [] %}}{{{{ tool | tojson }}}}
{{% endfor %}}
{{%- for message in messages %}}<|im_start|>{{{{ message.role }}}}
{{% if {written} %}}{{{{ message.content or '' }}}}{{% endif %}}
{{%- for call in message.tool_calls or [] %}}<tool_call>
{{"name": "{{{{ call.function.name }}}}", "arguments": {{{{ call.function.arguments }}}}}}
</tool_call>{{% endfor %}}<|im_end|>
{{% endfor %}}
{{%- if add_generation_prompt %}}<|im_start|>assistant
{{% endif %}}"""
KEEPS, DROPS = TEMPLATE.format(written="true"), TEMPLATE.format(written="not message.tool_calls")


def server(template: str, change: dict[str, Any] | None = None, first: dict[str, Any] | None = None) -> web.Application:
    """A server that renders its prompts with `template` and counts their tokens, and those of its replies.

    `change`: how its `usage` differs from the counts; a value is a function of (prompt, reply, number of the turn).
    """
    tokenizer = chat_tokenizer(template)

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    def reply(body: Body) -> dict[str, Any]:
        turn = len(results_of(body))
        message = says("She is 36.") if turn else dict(first or calls("age", REMARK, name="Ada"))
        prompt = tokenizer.apply_chat_template(
            body["messages"], tools=body["tools"], tokenize=False, add_generation_prompt=True
        )
        function = message["tool_calls"][0]["function"] if not turn else None
        written = "" if function is None else f'<tool_call>\n{{"name": "age", "arguments": {function["arguments"]}}}\n'
        thought = message.get("reasoning_content", "")
        usage: dict[str, Any] = {
            "prompt_tokens": count(prompt),
            "completion_tokens": count(f"{thought}{message['content'] or ''}{written}</tool_call><|im_end|>"),
        }
        counted = (usage["prompt_tokens"], usage["completion_tokens"], turn)
        usage |= {key: value(*counted) if callable(value) else value for key, value in (change or {}).items()}
        return {**message, "usage": {key: value for key, value in usage.items() if value is not None}}

    return chat_server(reply)


def warnings(folder: Path, application: Any) -> list[str]:
    (folder / "t.jsonl").write_text(json.dumps(TASK) + "\n")
    with served(lambda: application) as url:
        (folder / "r.yaml").write_text(RECIPE.format(url=url))
        said = in_process.rewright(folder, "run", "r.yaml", "--run", "run")
    assert said.code == 0, said.errors
    assert [verdict.correct for verdict in Run(folder / "run").verdicts] == [True, True]
    return [line for line in said.errors.splitlines() if line.startswith("warning: ")]


def test_a_template_that_drops_the_text_is_said_once(tmp_path: Path) -> None:
    (line,) = warnings(tmp_path, server(DROPS))
    assert line.startswith("warning: m at http://127.0.0.1:")
    assert "drops the text that the model wrote beside its calls" in line


def test_a_template_that_keeps_the_text_is_not(tmp_path: Path) -> None:
    assert warnings(tmp_path, server(KEEPS)) == []


@pytest.mark.parametrize("template", [KEEPS, DROPS])
@pytest.mark.parametrize(
    "change",
    [
        {"prompt_tokens": None},
        {"completion_tokens": None},
        {"prompt_tokens": None, "completion_tokens": None},
        # Cached tokens are not among the prompt's.
        {
            "prompt_tokens": lambda prompt, reply, turn: 20 if turn else prompt,
            "total_tokens": lambda prompt, reply, turn: prompt + reply,
            "prompt_tokens_details": lambda prompt, reply, turn: {"cached_tokens": prompt - 20 if turn else 0},
        },
    ],
    ids=["no prompt count", "no reply count", "no counts", "cached tokens left out"],
)
def test_counts_of_all_kinds(tmp_path: Path, template: str, change: dict[str, Any]) -> None:
    dropped = template is DROPS and "total_tokens" in change
    assert len(warnings(tmp_path, server(template, change))) == dropped


def test_cached_tokens_that_are_counted_hide_nothing(tmp_path: Path) -> None:
    def details(prompt: int, reply: int, turn: int) -> dict[str, int]:
        return {"cached_tokens": (prompt - 20) * turn}

    change = {"prompt_tokens_details": details, "total_tokens": lambda prompt, reply, turn: prompt + reply}
    assert len(warnings(tmp_path, server(DROPS, change))) == 1


@pytest.mark.parametrize("detail", [None, 90])
def test_hidden_reasoning_is_not_missed(tmp_path: Path, detail: int | None) -> None:
    """The server returns a thought in a field of its own, or counts one that it does not return."""
    thought = {"reasoning_content": "Her age is not in what I know. " * 3} if detail is None else {}
    change: dict[str, Any] = {}
    if detail is not None:
        change = {
            "completion_tokens": lambda prompt, reply, turn: reply + detail,
            "completion_tokens_details": {"reasoning_tokens": detail},
        }
    assert warnings(tmp_path, server(KEEPS, change, {**calls("age", "I look.", name="Ada"), **thought})) == []


def test_a_call_without_text_drops_nothing(tmp_path: Path) -> None:
    """Its arguments may be written in fewer tokens than the model wrote."""
    change = {"completion_tokens": lambda prompt, reply, turn: reply + 200}
    assert warnings(tmp_path, server(KEEPS, change, calls("age", None, name="Ada"))) == []
