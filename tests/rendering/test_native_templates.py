"""Native dialects through the models' chat templates: what these write is read, by us and by another reader, and what
stands between two turns is exactly what they write there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rewright.cli import main as cli
from rewright.core.errors import InputError
from rewright.core.records import FollowUp, Message, Task, ToolCall, ToolResult, ToolSpec, Trajectory, Turn
from rewright.dialects import get_dialect
from rewright.dialects.base import read_turn
from rewright.dialects.detect import detect_dialect
from rewright.dialects.native import NativeDialect
from rewright.dialects.typed import schemas_of_values
from rewright.engines.base import Generation
from rewright.rendering.renderer import Renderer
from rewright.rollout.loop import Plan, Rollout
from rewright.tasks.loading import save_tasks
from rewright.tools import FunctionTools
from support.native_templates import ALL, FROM_TRL, OURS, bfcl_function_gemma, calls, native_renderer, template_of
from support.scripted_engine import ScriptedEngine

pytest.importorskip("trl")
pytest.importorskip("bfcl_eval")

QUESTION: Message = {"role": "user", "content": "question"}
ONE_CALL = ("llama3_1", "llama3_2", "gptoss", "gptoss_training")
"""Their templates take one call per message."""
WRITES_PYTHON = ("qwen3_5_think", "qwen3_5_nothink", "nemotron_3", "gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4")
"""Their templates write True or None as Python does."""
EACH_FORM = (
    "qwen3_5_think", "qwen3_6", "nemotron_3_nano", "glm4moe", "llama3_1", "gptoss", "gemma4", "gemma4_v5", "deepseekv3",
    "deepseekv3_training", "mistral-v3", *OURS,
)  # fmt: skip
"""Templates that differ in how they write a call."""
PLAIN = ("qwen-xml", "glm", "gemma", "functiongemma")
READS = {
    "qwen-xml": ("qwen3_6", "nemotron_3_nano"),
    "glm": ("glm4moe",),
    "llama": ("llama3_1",),
    "harmony": ("gptoss",),
    "gemma": ("gemma4_v5",),
}
"""Templates for which TRL has a response template, by dialect."""


def dialect_of(renderer: Renderer) -> NativeDialect:
    assert isinstance(renderer.dialect, NativeDialect)
    return renderer.dialect


def rendered(renderer: Renderer, some: Sequence[ToolCall], following: Sequence[Message] = ()) -> str:
    """A conversation in which the model makes calls, as the template alone writes it."""
    head: Message = {"role": "assistant", "content": "", "tool_calls": dialect_of(renderer).tool_calls(some)}
    return str(
        renderer.tokenizer.apply_chat_template(
            [QUESTION, renderer.as_message(head), *following], tokenize=False, add_generation_prompt=bool(following)
        )
    )


def pairs(some: Sequence[ToolCall]) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, call.arguments) for call in some]


def tools_of(some: Sequence[ToolCall]) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {**one, "description": "A tool."}} for one in schemas_of_values(some)]


def draw_calls(data: st.DataObject, name: str) -> list[ToolCall]:
    dialect = template_of(name)[0]
    some = data.draw(calls(plain=dialect in PLAIN, most=1 if name in ONE_CALL else 3))
    return list({one.name: one for one in some}.values())  # a schema per name


@pytest.mark.parametrize("name", EACH_FORM)
@given(data=st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_the_template_writes_is_read_with_equal_calls(name: str, data: st.DataObject) -> None:
    renderer, some = native_renderer(name), draw_calls(data, name)
    text = rendered(renderer, some).partition("question")[2]
    for header in ("assistant\n", "assistant<|end_header_id|>\n\n", "<|start|>assistant", "<|Assistant|>", "model\n"):
        text = text.partition(header)[2] if header in text else text
    found = read_turn(renderer.dialect, text, "end", tools_of(some)).calls
    assert [call.error for call in found] == [None] * len(some)
    assert pairs(found) == pairs(some)
    if not name.startswith(WRITES_PYTHON):
        assert dialect_of(renderer).written(some) in text


@pytest.mark.parametrize("name", [name for names in READS.values() for name in names])
@given(data=st.data())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_reader_of_transformers_finds_equal_calls(name: str, data: st.DataObject) -> None:
    reader = pytest.importorskip("transformers.utils.chat_parsing", reason="this transformers has no such reader")
    from trl.chat_template_utils import add_response_schema

    renderer, some = native_renderer(name), draw_calls(data, name)
    tokenizer = renderer.tokenizer
    if getattr(tokenizer, "response_template", None) is None:
        add_response_schema(tokenizer)
    dialect = dialect_of(renderer)
    prompt = renderer.prompt_text([QUESTION], [])
    written = dialect.written(some)
    if name == "gptoss":
        written = dialect.write("<|channel|>analysis<|message|>hm<|end|><|start|>assistant", some)
    if renderer.opens_thought:
        written = "hm\n</think>\n\n" + written
    closing = str(tokenizer.decode(renderer.end_ids(some)))
    read = reader.parse_response(written + closing, tokenizer.response_template, prefix=prompt, tools=tools_of(some))
    second = [(one["function"]["name"], one["function"].get("arguments") or {}) for one in read.get("tool_calls", [])]
    assert second == pairs(some)
    assert pairs(read_turn(dialect, written, "end", tools_of(some)).calls) == second


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_reader_of_bfcl_finds_equal_arguments_of_functiongemma(data: st.DataObject) -> None:
    (call,) = data.draw(calls(plain=True, most=1).filter(lambda some: "exotic" not in some[0].arguments))
    written = dialect_of(native_renderer("functiongemma")).written([call])
    body = written[written.index("{") : written.rindex("}") + 1]
    assert bfcl_function_gemma(body) == call.arguments


RESULT = ToolResult("RES <|im_end|> <turn|> [INST] <｜User｜>")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("follow_up", [None, FollowUp((QUESTION,))])
def test_between_call_and_next_turn_stands_what_the_template_writes(name: str, follow_up: FollowUp | None) -> None:
    renderer = native_renderer(name)
    if name == "mistral-v3" and follow_up is not None:
        return  # its template refuses a user's message behind results
    call = ToolCall("f", {"a": "xyz"})
    written = dialect_of(renderer).written([call])
    shown = ToolResult(renderer.escape(RESULT.content))
    following = [*renderer.dialect.results_as_messages([call], [shown]), *(follow_up.messages if follow_up else ())]
    expected = rendered(renderer, [call], following).partition(written)[2]
    assert "RES" in expected
    cut = renderer.suffix_ids((call,), (RESULT,), ended=False, follow_up=follow_up)
    assert renderer.tokenizer.decode(cut) == expected
    end = renderer.end_ids((call,), (RESULT,), follow_up)
    suffix = renderer.suffix_ids((call,), (RESULT,), ended=True, follow_up=follow_up, end=end[-1])
    assert renderer.tokenizer.decode([*end, *suffix]) == expected.lstrip()
    for word in ("<|im_end|>", "[INST]", "<｜User｜>"):
        assert word not in expected.partition("RES")[2].partition("< |im_end|>")[0]


@pytest.mark.parametrize("name", [name for name in ALL if name not in ONE_CALL])
def test_results_of_several_calls_stand_one_after_the_other(name: str) -> None:
    renderer = native_renderer(name)
    some = [ToolCall("f", {"a": "xyz"}), ToolCall("f", {"b": "uvw"})]
    results = [ToolResult("ONE"), ToolResult("TWO")]
    written = dialect_of(renderer).written(some)
    expected = rendered(renderer, some, renderer.dialect.results_as_messages(some, results)).partition(written)[2]
    suffix = renderer.tokenizer.decode(renderer.suffix_ids(some, results, ended=False))
    if name == "mistral-v3":  # ids are the numbers of the calls
        assert '"call_id": "000000000"' in suffix
    assert suffix == expected


ENDS = {"qwen-xml": "<|im_end|>", "llama": "<|eot_id|>", "harmony": "<|call|>", "gemma": "<|tool_response>",
        "glm": "<|observation|>", "deepseek": "<｜end▁of▁sentence｜>", "deepseek-v3": "<｜end▁of▁sentence｜>",
        "mistral": "</s>", "mistral-v3": "</s>", "functiongemma": "<start_function_response>"}  # fmt: skip
"""The token with which a model of the family ends a turn with calls."""


@pytest.mark.parametrize("name", ALL)
def test_sft_and_rollouts_have_the_same_tokens(name: str) -> None:
    """The mask of SFT covers a turn and its end; prompt, turns and suffixes are those of a rollout, by token."""
    renderer = native_renderer(name)
    dialect = dialect_of(renderer)
    call = ToolCall("f", {"a": "xyz"})
    first = dialect.write("", (call,))
    turns = (Turn(text=first, calls=(call,), results=(RESULT,)), Turn(text="done <answer>1</answer>"))
    made = Trajectory(id="1", task_id="1", stage="s", index=0, stop_reason="answered", turns=turns)
    task = Task(id="1", messages=({"role": "system", "content": "Use <answer>."}, QUESTION))
    ids, mask = renderer.encode_trajectory(task, made)
    taught = str(renderer.tokenizer.decode([one for one, own in zip(ids, mask, strict=True) if own]))
    end = "<turn|>" if name == "gemma4_v2" else ENDS[dialect.name]
    last = str(renderer.tokenizer.decode(renderer.end_ids()))
    assert taught == f"{first}{end}done <answer>1</answer>{last}"
    whole = str(renderer.tokenizer.decode(ids))
    assert whole.startswith(renderer.prompt_text(task.messages, []))
    prompt = renderer.task_prompt_ids(task)
    own = [*renderer.encode_text(first), *renderer.end_ids((call,), (RESULT,))]
    suffix = renderer.suffix_ids((call,), (RESULT,), ended=True, end=own[-1])
    assert ids[: len(prompt) + len(own) + len(suffix)] == [*prompt, *own, *suffix]


SCHEMA = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {
            "type": "object",
            "properties": {"n": {"type": "integer", "description": "A number."}},
            "required": ["n"],
        },
    },
}
ADD = ToolSpec(schema=SCHEMA, source="def add(n):\n    return n + 1 if isinstance(n, int) else 'not a number'")


@pytest.mark.parametrize(
    "name", ["qwen3_5_think", "glm4moe", "llama3_1", "gptoss", "gemma4_v5", "deepseekv3", "mistral-v3", "mistral-v13"]
)
async def test_a_rollout_calls_the_tool_with_typed_arguments_and_goes_on(name: str) -> None:
    renderer = native_renderer(name)
    dialect = dialect_of(renderer)
    thoughts = ["hm</think>" if renderer.opening(turn) else "" for turn in range(2)]
    text = dialect.write(thoughts[0], (ToolCall("add", {"n": 41}),))
    ids = (*renderer.encode_text(text), *renderer.end_ids((ToolCall("add", {}),), (RESULT,)))
    first = Generation(text=text, token_ids=ids, log_probs=(0.0,) * len(ids), stop="end")
    engine = ScriptedEngine([first, thoughts[1] + "<answer>42</answer>"], tokenizer=renderer.tokenizer)
    tools = FunctionTools(level="process")
    task = Task(id="1", messages=(QUESTION,), tools=(ADD,))
    found = await Rollout(engine, dialect, tools, renderer=renderer).run(
        Plan(id="1", task=task, stage="synth", index=0, seed=0)
    )
    await tools.close()
    assert (found.stop_reason, found.answer) == ("answered", "42")
    assert found.turns[0].results[0].content == "42"
    request = str(renderer.tokenizer.decode(list(engine.requests[1].token_ids or ())))
    shown = renderer.dialect.results_as_messages([ToolCall("add", {})], [ToolResult("42")])
    assert request.endswith(rendered(renderer, [ToolCall("add", {"n": 41})], shown).rpartition("41")[2][-60:])
    prompt = str(renderer.tokenizer.decode(list(engine.requests[0].token_ids or ())))
    assert "Adds." in prompt
    if not renderer.native_tools:  # the template of DeepSeek V3 has no tools
        assert dialect.written([ToolCall("name", {"argument": "value"})]) in prompt


def test_a_thought_that_the_template_opens_belongs_to_the_turn() -> None:
    renderer = native_renderer("gemma4_v5", enable_thinking=True)
    assert (renderer.opening(0), renderer.opening(1)) == ("", "<|channel>thought")
    parsed = renderer.dialect.parse(renderer.opening(1) + "\nhm<channel|><answer>1</answer>")
    assert (parsed.thought.strip(), parsed.answer) == ("hm", "1")
    assert native_renderer("qwen3_5_think").opening(1) == "<think>"
    assert native_renderer("deepseekv3").opening(0) == "<think>"
    assert native_renderer("deepseekv3").opening(1) == ""


# A dialect that does not fit the model.


@pytest.mark.parametrize("name", ALL)
def test_the_dialect_of_a_template_is_recognised(name: str) -> None:
    dialect, template = template_of(name)
    assert detect_dialect(template) == dialect


def test_the_dialect_of_hermes_templates_is_recognised() -> None:
    import trl

    folder = Path(trl.__file__).parent / "chat_templates"
    for name in ("qwen3", "qwen2_5", "qwen3_instruct_2507"):
        assert detect_dialect((folder / f"{name}.jinja").read_text(encoding="utf-8")) == "hermes"
    assert detect_dialect((folder / "gemma3.jinja").read_text(encoding="utf-8")) is None


@pytest.mark.parametrize(
    ("name", "dialect", "words"),
    [
        ("glm4moe", "qwen-xml", "expected dialect glm"),
        ("qwen3_6", "glm", "expected dialect qwen-xml"),
        ("gptoss", "llama", "expected dialect harmony"),
        ("deepseekv3", "deepseek", "expected dialect deepseek-v3"),
        ("mistral-v13", "mistral-v3", "expected dialect mistral"),
    ],
)
def test_a_template_of_another_family_is_refused_in_one_line(name: str, dialect: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as refused:
        native_renderer(name, dialect)
    assert "\n" not in str(refused.value)
    assert dialect in str(refused.value)


def test_a_template_that_changes_a_call_once_results_follow_is_refused() -> None:
    tokenizer = native_renderer("mistral-v13").tokenizer
    changed = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, eos_token="</s>")
    changed.chat_template = tokenizer.chat_template.replace(
        "{{ '</s>' }}", "{% if loop.last %}{{ '</s>' }}{% else %}{{ ' -> ' }}{% endif %}"
    )
    assert "->" in changed.chat_template
    with pytest.raises(InputError, match="not prefix-preserving"):
        Renderer(changed, get_dialect("mistral"))


def test_validate_names_the_dialect_that_reads_a_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    native_renderer("glm4moe").tokenizer.save_pretrained(tmp_path / "model")
    save_tasks(tmp_path / "t.jsonl", [Task(id="1", messages=(QUESTION,), tools=(ADD,))])
    cli.app(["validate", str(tmp_path / "t.jsonl"), "--model", str(tmp_path / "model")], standalone_mode=False)
    assert "dialect: glm reads it" in capsys.readouterr().out
    command = ["validate", str(tmp_path / "t.jsonl"), "--model", str(tmp_path / "model"), "--dialect"]
    cli.app([*command, "glm"], standalone_mode=False)
    assert "template-calls" not in capsys.readouterr().out
    with pytest.raises(InputError, match="expected dialect glm"):
        cli.app([*command, "harmony"], standalone_mode=False)


def test_every_template_of_trl_with_calls_of_its_own_has_a_dialect() -> None:
    import trl

    folder = Path(trl.__file__).parent / "chat_templates"
    known = {}
    for path in folder.glob("*.jinja"):
        known[path.stem] = detect_dialect(path.read_text(encoding="utf-8"))
    for name, dialect in FROM_TRL.items():
        assert known[name] == dialect
