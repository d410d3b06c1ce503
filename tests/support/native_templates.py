"""Small tokenizers with chat templates of model families, and calls that any of them can be asked to write."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from rewright.core.records import ToolCall
from rewright.dialects import get_dialect
from rewright.rendering.renderer import Renderer
from support.small_tokenizers import QWEN_SPECIAL, chat_tokenizer

FROM_TRL = {
    **dict.fromkeys(("qwen3_5_think", "qwen3_5_nothink", "qwen3_6", "qwen3_8"), "qwen-xml"),
    **dict.fromkeys(("nemotron_3_nano", "nemotron_3_super", "nemotron_3_ultra", "nemotron_3_5_lightning"), "qwen-xml"),
    **dict.fromkeys(("glm4moe", "glm4moe_training"), "glm"),
    **dict.fromkeys(("llama3_1", "llama3_2"), "llama"),
    **dict.fromkeys(("gptoss", "gptoss_training"), "harmony"),
    **dict.fromkeys(("gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4", "gemma4_v5", "diffusion_gemma"), "gemma"),
    **dict.fromkeys(("deepseekv3", "deepseekv3_training"), "deepseek-v3"),
}
"""Templates that TRL carries, and their dialects."""

DEEPSEEK = (
    "{% set seen = namespace(user=false, tool=false) %}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ m.content }}{% endif %}"
    "{% if m.role == 'user' %}{% set seen.user = true %}{% set seen.tool = false %}{{ '<｜User｜>' + m.content }}"
    "{% elif m.role == 'assistant' %}{% if seen.user %}{{ '<｜Assistant｜></think>' }}{% endif %}"
    "{% set seen.user = false %}{{ m.content }}{% if m.tool_calls %}{{ '<｜tool▁calls▁begin｜>' }}"
    "{% for c in m.tool_calls %}{{ '<｜tool▁call▁begin｜>' + c.function.name + '<｜tool▁sep｜>' + c.function.arguments"
    " + '<｜tool▁call▁end｜>' }}{% endfor %}{{ '<｜tool▁calls▁end｜>' }}{% endif %}{{ '<｜end▁of▁sentence｜>' }}"
    "{% elif m.role == 'tool' %}{{ '<｜tool▁output▁begin｜>' + m.content + '<｜tool▁output▁end｜>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt and seen.user %}{{ '<｜Assistant｜></think>' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
    "{{ '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' }}"
    "{% elif m.role == 'user' %}{% if tools %}{{ '[AVAILABLE_TOOLS]' + tools|tojson + '[/AVAILABLE_TOOLS]' }}"
    "{% endif %}{{ '[INST]' + m.content + '[/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ m.content }}{% for c in m.tool_calls or [] %}"
    "{{ '[TOOL_CALLS]' + c.function.name + '[ARGS]' + c.function.arguments|tojson }}{% endfor %}{{ '</s>' }}"
    "{% elif m.role == 'tool' %}{{ '[TOOL_RESULTS]' + m.content + '[/TOOL_RESULTS]' }}{% endif %}{% endfor %}"
)
FUNCTION_GEMMA = (
    "{% macro value(v) %}{% if v is none %}null{% elif v is string %}{{ '<escape>' + v + '<escape>' }}"
    "{% elif v is boolean %}{{ 'true' if v else 'false' }}{% elif v is mapping %}{{ pairs(v) }}"
    "{% elif v is sequence %}[{% for x in v %}{{ value(x) }}{{ ',' if not loop.last }}{% endfor %}]"
    "{% else %}{{ v }}{% endif %}{% endmacro %}"
    "{% macro pairs(v) %}{{ '{' }}{% for k, x in v|dictsort %}{{ k }}:{{ value(x) }}{{ ',' if not loop.last }}"
    "{% endfor %}{{ '}' }}{% endmacro %}"
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'tool' %}"
    "{{ '<start_function_response>response:' + m.name + '{value:<escape>' + m.content + '<escape>}"
    "<end_function_response>' }}{% else %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) }}\n"
    "{{ m.content }}{% for c in m.tool_calls or [] %}"
    "{{ '<start_function_call>call:' + c.function.name + pairs(c.function.arguments) + '<end_function_call>' }}"
    "{% endfor %}{% if m.tool_calls %}{% else %}{{ '<end_of_turn>\n' }}{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt and messages[-1].role != 'tool' %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
OURS = {
    "deepseek-v3.1": ("deepseek", DEEPSEEK),
    "mistral-v13": ("mistral", MISTRAL),
    "functiongemma": ("functiongemma", FUNCTION_GEMMA),
}
"""Templates in our own words, for models whose template no installed package carries: dialect and template."""

EOS = {
    "gptoss": "<|return|>", "glm4moe": "<|endoftext|>", "llama3": "<|eot_id|>", "deepseek": "<｜end▁of▁sentence｜>",
    "gemma": "<turn|>", "diffusion_gemma": "<turn|>", "mistral": "</s>", "functiongemma": "<end_of_turn>",
}  # fmt: skip
TOKENS = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|<｜[^<>｜\s]{1,40}｜>|<\|[a-z_]+>|<[a-z_]+\|>|</s>|\[/?[A-Z_]{4,}\]"
    r"|</?(?:(?:start|end)_[a-z_]+|think|tool_call|tool_response|escape)>"
)


def mistral_v3_template() -> str:
    """The template of Mistral 7B v0.3, which the package bfcl-eval quotes in its source."""
    from importlib.util import find_spec

    found = find_spec("bfcl_eval")
    assert found is not None and found.origin is not None
    path = Path(found.origin).parent / "model_handler/local_inference/mistral_fc.py"
    quoted = path.read_text(encoding="utf-8").partition('"chat_template":')[2].partition('"""')[0]
    return textwrap.dedent(quoted).strip()


def template_of(name: str) -> tuple[str, str]:
    """The dialect and the template of a name: one of TRL's, `mistral-v3`, or ours."""
    if name in OURS:
        return OURS[name]
    if name == "mistral-v3":
        return name, mistral_v3_template()
    import trl

    folder = Path(inspect.getfile(trl)).parent / "chat_templates"
    return FROM_TRL[name], (folder / f"{name}.jinja").read_text(encoding="utf-8")


ALL = (*FROM_TRL, "mistral-v3", *OURS)


@cache
def native_renderer(name: str, dialect: str | None = None, **options: Any) -> Renderer:
    """A renderer of that template, with its own dialect unless another one is given."""
    own, template = template_of(name)
    eos = next((token for start, token in EOS.items() if name.startswith(start)), "<|im_end|>")
    added = {*TOKENS.findall(template), eos, "<|call|>", "</think>", "<think>"} - set(QWEN_SPECIAL)
    tokenizer = chat_tokenizer(template, added=sorted(added))
    tokenizer.eos_token, tokenizer.bos_token = eos, "<|endoftext|>"
    tokenizer.name_or_path = name
    return Renderer(tokenizer, get_dialect(dialect or own), template_options=options)


def bfcl_function_gemma(text: str) -> dict[str, Any]:
    """What bfcl-eval's own reader of FunctionGemma makes of the arguments of a call (its file needs tree-sitter)."""
    from importlib.util import find_spec

    found = find_spec("bfcl_eval")
    assert found is not None and found.origin is not None
    path = Path(found.origin).parent / "model_handler/local_inference/functiongemma.py"
    wanted = ("Tokens", "_FunctionGemmaResponseParser")
    source = ast.parse(path.read_text(encoding="utf-8"))
    body: list[ast.stmt] = [node for node in source.body if isinstance(node, ast.ClassDef) and node.name in wanted]
    names: dict[str, Any] = {"Any": Any, "Dict": dict, "List": list, "Optional": Any}
    exec(compile(ast.Module(body, []), str(path), "exec"), names)
    read: dict[str, Any] = names["_FunctionGemmaResponseParser"]().parse(text)
    return read


MARKS = ("</", "<parameter", "<arg", '<|"|>', "<escape>", "<tool_call", "<|", "|>", "<｜", "[", "<start", "<end")


def texts(*, plain: bool = False) -> st.SearchStrategy[str]:
    """Texts of any characters, with quotes and line breaks. `plain`: no marks and no outer white space."""
    free = st.text(st.characters(exclude_categories=["Cs", "Cc"] if plain else ["Cs"]), max_size=12)
    hard = st.sampled_from(
        ['say "hi"', "it's", "a\nb", "{}", '{"a": 1}', "5", "true", "null", "ünï 😀", "a\\b", ": ,;"]
    )
    every = free | hard
    if not plain:
        return every
    return every.map(lambda text: text.strip()).filter(lambda text: not any(mark in text for mark in MARKS))


def arguments(*, plain: bool = False) -> st.SearchStrategy[dict[str, Any]]:
    """Arguments of any JSON type, nested; may be empty."""
    keys = st.from_regex(r"[a-z_][a-z0-9_]{0,6}", fullmatch=True)
    numbers = st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9, allow_nan=False).map(lambda x: round(x, 3) + 0.0)
    leaves = texts(plain=plain) | numbers | st.booleans() | st.none()
    values = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=5,
    )
    return st.dictionaries(keys, values, max_size=4)


def calls(*, plain: bool = False, most: int = 3) -> st.SearchStrategy[list[ToolCall]]:
    """One or several calls."""
    names = st.from_regex(r"[a-z][a-zA-Z0-9_]{0,8}", fullmatch=True)
    return st.lists(st.builds(ToolCall, names, arguments(plain=plain)), min_size=1, max_size=most)
