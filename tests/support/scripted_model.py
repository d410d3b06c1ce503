"""A real causal language model with known answers: weights chosen so that each token has one certain successor.

A one-layer Qwen2 (attention and MLP write nothing) whose output row for a token is the embedding of its predecessor.
The chat template ends the prompt with the token that opens the script to be played, so a server that loads the folder
plays a tool call, an answer, a malformed call or a thought: through its real template, decoding and parsers.
Written with numpy: no torch in the process that makes it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CALL = '\n{"name": "lookup", "arguments": {"name": "Ada", "fields": ["age"]}}\n'
BROKEN = '<tool_call>\n{"name": "lookup", "arguments": {"name": \n'
ANSWER = "<answer>36</answer>"
THOUGHT = "\nI know this.\n"
REMARK = tuple(f" aside{number}" for number in range(60))
"""Words that are tokens of their own, each once."""
END = "<|im_end|>"
SCRIPTS = {
    "<|say_call|>": ["<tool_call>", CALL, "</tool_call>", END],
    "<|say_broken|>": [BROKEN, "</tool_call>", END],
    "<|say_thought|>": ["<think>", THOUGHT, "</think>", ANSWER, END],
    "<|say_answer|>": [ANSWER, END],
    "<|say_aloud|>": [*REMARK, "<tool_call>", CALL, "</tool_call>", END],
}
"""What the model writes after each opening token. A token has one successor, so scripts meet only at their ends."""

TEMPLATE = """\
{%- if tools %}<|im_start|>system:
# Tools
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}: {{ message.content or '' }}
{%- for call in message.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant:
{%- if messages[-1].role == 'tool' %}<|say_answer|>
{%- elif 'broken' in messages[-1].content %}<|say_broken|>
{%- elif 'aloud' in messages[-1].content %}<|say_aloud|>
{%- elif 'think' in messages[-1].content %}<|say_thought|>
{%- elif tools %}<|say_call|>
{%- else %}<|say_answer|>
{%- endif %}{% endif %}"""

RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": list(SCRIPTS),
    "fields": {
        "reasoning_content": {"open": "<think>", "close": "</think>", "content": "text"},
        "tool_calls": {
            "open_pattern": r"\s*<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close": END, "content": "text"},
    },
}
"""How `transformers serve` finds the parts of a reply. Its own default for Qwen begins where Qwen's template ends."""

HIDDEN = 128


def make_scripted_model(folder: Path) -> Tokenizer:
    """Write a model folder that transformers and vLLM can load; returns its tokenizer."""
    tokenizer = _tokenizer()
    vocabulary = tokenizer.get_vocab_size()
    successors: dict[int, int] = {}
    for opening, script in SCRIPTS.items():
        for token, following in zip([opening, *script], script, strict=False):
            first, second = tokenizer.token_to_id(token), tokenizer.token_to_id(following)
            if successors.setdefault(first, second) != second:
                raise ValueError(f"{token!r} has two successors")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(successor_weights(vocabulary, successors), folder / "model.safetensors", metadata={"format": "pt"})
    end = tokenizer.token_to_id(END)
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": vocabulary, "hidden_size": HIDDEN,
        "intermediate_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "hidden_act": "silu",
        "bos_token_id": None, "eos_token_id": end, "pad_token_id": end, "torch_dtype": "float32", "use_cache": True,
    }  # fmt: skip
    files = {
        "config.json": config,
        "generation_config.json": {"eos_token_id": end, "pad_token_id": end, "do_sample": True},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": END, "model_max_length": 4096,
            "response_template": RESPONSE_TEMPLATE,
        },
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def _tokenizer() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", END, *SCRIPTS]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    plain = sorted({token for script in SCRIPTS.values() for token in script} - set(special))
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    return tokenizer


def successor_weights(vocabulary: int, successors: dict[int, int]) -> dict[str, np.ndarray]:
    """Weights of a one-layer Qwen2 whose next token is certain: {token: its successor}."""
    generator = np.random.default_rng(0)
    embedding = generator.standard_normal((vocabulary, HIDDEN)).astype(np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    head = np.zeros_like(embedding)
    for first, second in successors.items():
        head[second] += 10 * embedding[first]
    zero, bias = np.zeros((HIDDEN, HIDDEN), np.float32), np.zeros(HIDDEN, np.float32)
    layer = "model.layers.0."
    weights = {"model.embed_tokens.weight": embedding, "lm_head.weight": head, "model.norm.weight": bias + 1}
    for name in ("input_layernorm", "post_attention_layernorm"):
        weights[f"{layer}{name}.weight"] = bias + 1
    for name in ("q_proj", "k_proj", "v_proj"):
        weights |= {f"{layer}self_attn.{name}.weight": zero.copy(), f"{layer}self_attn.{name}.bias": bias.copy()}
    for name in ("self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"):
        weights[f"{layer}{name}.weight"] = zero.copy()
    return weights
