"""Where a turn ends, in all templates that TRL carries: in front of results, of the user, and at the end of all."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from rewright.cli import main as cli
from rewright.core.records import FollowUp, Message, Task, ToolCall, ToolResult, Trajectory, Turn
from rewright.dialects import get_dialect
from rewright.engines.base import Generation
from rewright.rendering.renderer import QUESTION, Renderer
from rewright.rendering.template_check import template_findings
from rewright.rollout.loop import Plan, Rollout
from rewright.serving.conversations import conversation_ids
from rewright.tasks.loading import save_tasks
from rewright.tools import FunctionTools
from support.scripted_engine import ScriptedEngine
from support.small_tokenizers import QWEN_SPECIAL, chat_tokenizer

trl = pytest.importorskip("trl")
TEMPLATES = Path(trl.__file__).parent / "chat_templates"
TOKENS = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|<｜[^<>｜\s]{1,40}｜>|<\|(?:turn|tool_response)>|<(?:turn|tool_response)\|>"
    r"|</?(?:(?:start|end)_of_turn|think|tool_call|tool_response)>"
)
ONLY_PICTURES = ("idefics3", "smolvlm", "llava_next")
"""They take no text as content."""

EOS = {
    "gptoss": "<|return|>", "glm4moe": "<|endoftext|>", "phi3": "<|endoftext|>", "phi3_5": "<|endoftext|>",
    "gemma": "<eos>", "gemma3": "<eos>", "cohere2": "<|END_OF_TURN_TOKEN|>", "cohere": "<|END_OF_TURN_TOKEN|>",
    "llama3": "<|eot_id|>", "llama3_1": "<|eot_id|>", "llama3_2": "<|eot_id|>",
    "deepseekv3": "<｜end▁of▁sentence｜>", "deepseek_r1_distill": "<｜end▁of▁sentence｜>",
}  # fmt: skip
"""End tokens of the models' own tokenizers, where it is not `<|im_end|>`."""
LAST: dict[str, str] = {
    **dict.fromkeys(("gemma", "gemma3"), "<end_of_turn>"),
    **dict.fromkeys(("diffusion_gemma", "gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4", "gemma4_v5"), "<turn|>"),
    **dict.fromkeys(("llama3", "llama3_1", "llama3_2"), "<|eot_id|>"),
    **dict.fromkeys(("phi3", "phi3_5"), "<|end|>"),
    **dict.fromkeys(("deepseekv3", "deepseek_r1_distill"), "<｜end▁of▁sentence｜>"),
    "cohere": "<|END_OF_TURN_TOKEN|>",
    "cohere2": "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
    "muse_glimmer": "<|eot|>",
    "gptoss": "<|return|>",
    "glm4moe": "<|endoftext|>",
    "glm4moe_training": "<|user|>",
}
"""What ends the last turn, where it is not `<|im_end|>`."""
BETWEEN = {"gptoss": "<|end|>", "glm4moe": "<|observation|>"}
"""What ends a turn in front of results, where it is something else."""

CALL, RESULT = ToolCall("f", {"a": 1}), ToolResult("RES")
TEXT = "WRITTEN"
NAMES = sorted(path.stem for path in TEMPLATES.glob("*.jinja"))
NAMES = [name for name in NAMES if name.removesuffix("_training") not in ONLY_PICTURES]


def of(table: dict[str, str], name: str, default: str) -> str:
    return table.get(name, table.get(name.removesuffix("_training"), default))


@cache
def renderer_of(name: str) -> Renderer:
    template = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    eos = of(EOS, name, "<|im_end|>")
    added = {*TOKENS.findall(template), eos, "<|call|>", *TOKENS.findall(of(LAST, name, ""))} - set(QWEN_SPECIAL)
    tokenizer = chat_tokenizer(template, added=sorted(added))
    tokenizer.eos_token, tokenizer.bos_token = eos, "<|endoftext|>"
    return Renderer(tokenizer, get_dialect("hermes"))


def behind(renderer: Renderer, following: list[Message], *, generation: bool = True) -> str:
    """What the template itself writes behind a message of the model."""
    messages = [QUESTION, {"role": "assistant", "content": TEXT}, *following]
    text = renderer.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
    return str(text).partition(TEXT)[2]


def results(renderer: Renderer) -> list[Message]:
    return renderer.as_messages(renderer.dialect.results_as_messages([CALL], [RESULT]))


def ids_of(renderer: Renderer, text: str) -> list[int]:
    return list(renderer.tokenizer.encode(text, add_special_tokens=False))


def test_every_template_of_trl_is_looked_at() -> None:
    assert len(NAMES) > 60
    assert {"gptoss", "glm4moe", "qwen3", "llama3_1", "gemma", "phi3", "cohere2", "deepseekv3"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_turn_that_the_model_ended_is_followed_by_what_the_template_writes_there(name: str) -> None:
    renderer = renderer_of(name)
    end = of(BETWEEN, name, of(LAST, name, "<|im_end|>")) if name != "glm4moe_training" else "<|user|>"
    own = ids_of(renderer, end)
    suffix = renderer.suffix_ids((CALL,), (RESULT,), ended=True, end=own[-1])
    assert renderer.tokenizer.decode([*own, *suffix]) == behind(renderer, results(renderer)).lstrip()
    cut = renderer.suffix_ids((CALL,), (RESULT,), ended=False)
    assert renderer.tokenizer.decode(cut) == behind(renderer, results(renderer))
    if name == "glm4moe":
        return  # what opens the user's message, another token, ends a turn in front of it
    asked = renderer.suffix_ids((), (), ended=True, follow_up=FollowUp((QUESTION,)), end=own[-1])
    assert renderer.tokenizer.decode([*own, *asked]) == behind(renderer, [QUESTION]).lstrip()


@pytest.mark.parametrize(
    ("name", "end", "following"),
    [
        ("gptoss", "<|return|>", "<|start|>user"),
        ("gptoss", "<|call|>", "<|start|>user"),
        ("gptoss", "<|end|>", "<|start|>user"),
        ("glm4moe", "<|observation|>", "\n<tool_response>"),
        ("glm4moe", "<|endoftext|>", "<|observation|>\n<tool_response>"),
        ("phi3", "<|endoftext|>", "\n<|user|>"),
        ("phi3", "<|end|>", "\n<|user|>"),
        ("llama3_1", "<|im_end|>", "<|start_header_id|>ipython"),
    ],
)
def test_whichever_token_ended_the_turn_no_second_one_ends_it(name: str, end: str, following: str) -> None:
    renderer = renderer_of(name)
    suffix = renderer.suffix_ids((CALL,), (RESULT,), ended=True, end=ids_of(renderer, end)[-1])
    assert str(renderer.tokenizer.decode(suffix)).startswith(following)


@pytest.mark.parametrize(
    ("name", "end", "joint"),
    [
        ("gptoss", "<|call|>", "</tool_call><|call|><|start|>user"),
        ("gptoss", "<|return|>", "</tool_call><|return|><|start|>user"),
        ("glm4moe", "<|observation|>", "</tool_call><|observation|>\n<tool_response>"),
        ("phi3", "<|end|>", "</tool_call><|end|>\n<|user|>"),
    ],
)
async def test_a_rollout_goes_on_behind_the_token_that_ended_its_turn(name: str, end: str, joint: str) -> None:
    renderer = renderer_of(name)
    text = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    ids = tuple(ids_of(renderer, text + end))
    first = Generation(text=text, token_ids=ids, log_probs=(0.0,) * len(ids), stop="end")
    engine = ScriptedEngine([first, "<answer>1</answer>"], tokenizer=renderer.tokenizer)
    tools = FunctionTools(level="process")
    found = await Rollout(engine, renderer.dialect, tools, renderer=renderer).run(
        Plan(id="1", task=TASK, stage="synth", index=0, seed=0)
    )
    await tools.close()
    assert found.stop_reason == "answered"
    assert joint in renderer.tokenizer.decode(list(engine.requests[1].token_ids or ()))


def trajectory() -> Trajectory:
    turns = (
        Turn(text="one", calls=(CALL,), results=(RESULT,)),
        Turn(text="two", follow_up=FollowUp((QUESTION,))),
        Turn(text="three"),
    )
    return Trajectory(id="1", task_id="1", stage="s", index=0, stop_reason="answered", turns=turns)


TASK = Task(id="1", messages=(QUESTION,))


@pytest.mark.parametrize("name", NAMES)
def test_sft_teaches_to_end_every_turn_once(name: str) -> None:
    renderer = renderer_of(name)
    ids, mask = renderer.encode_trajectory(TASK, trajectory())
    taught = str(renderer.tokenizer.decode([one for one, own in zip(ids, mask, strict=True) if own]))
    last = of(LAST, name, "<|im_end|>")
    ends = ["<|observation|>", "<|user|>", last] if name == "glm4moe" else [last] * 3
    assert taught == "".join(text + end for text, end in zip(("one", "two", "three"), ends, strict=True))
    whole = str(renderer.tokenizer.decode(ids))
    between = of(BETWEEN, name, "")
    for text, following in (("one", results(renderer)), ("two", [QUESTION])):
        expected = behind(renderer, following).lstrip()
        if "gptoss" in name:  # the model's own end stands in the place of the template's
            expected = last + expected.removeprefix(between)
        assert text + expected.partition("RES")[0].partition("question")[0] in whole


def test_a_served_reward_model_reads_the_same_tokens() -> None:
    turns = (trajectory().turns[0], Turn(text="three"))
    made = Trajectory(id="1", task_id="1", stage="s", index=0, stop_reason="answered", turns=turns)
    for name in ("gptoss", "glm4moe", "qwen3", "cohere2"):
        renderer = renderer_of(name)
        task = Task(id="1", messages=tuple(renderer.dialect.messages(TASK)))
        said: list[Message] = [
            {"role": "assistant", "content": "one"}, {"role": "tool", "name": "f", "content": "RES"},
            {"role": "assistant", "content": "three"},
        ]  # fmt: skip
        found = conversation_ids(renderer, [*task.messages, *said], [])
        assert found == renderer.encode_trajectory(task, made)[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_check_names_the_templates_whose_turns_end_in_two_ways(name: str) -> None:
    found = [one.message for one in template_findings(renderer_of(name), TASK) if one.kind == "template-end"]
    assert bool(found) == (name in ("gptoss", "gptoss_training", "glm4moe"))
    if "gptoss" in name:
        assert "ends the last message with '<|return|>' and earlier ones with '<|end|>'" in found[0]
    elif found:
        assert "training ends a message before results with '<|observation|>', which starts the results" in found[0]
        assert "'<|endoftext|>'" in found[0]


@pytest.mark.parametrize(("name", "words"), [("gptoss", "'<|return|>'"), ("glm4moe", "'<|observation|>'")])
def test_validate_says_so(name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    renderer_of(name).tokenizer.save_pretrained(tmp_path / "model")
    save_tasks(tmp_path / "t.jsonl", [TASK])
    cli.app(["validate", str(tmp_path / "t.jsonl"), "--model", str(tmp_path / "model")], standalone_mode=False)
    said = capsys.readouterr().out
    assert "warning: row 0 (1): the chat template: it " in said
    assert words in said
