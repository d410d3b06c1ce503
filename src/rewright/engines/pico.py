"""The pico models: causal language models of about a million parameters, trained on the embedded worlds.

A pico model is a standard `LlamaForCausalLM` with a byte-level BPE tokenizer of 1024 entries and a chat template with
`tools=` (it writes each schema as one line, `name(parameter, …)`, to keep prompts short). Names and digits have the
same tokens in questions, JSON and tool results, because a small model can only copy identical tokens.

`pico` and `pico-repairer` write the hermes dialect in the town world, `pico-tags` and `pico-tags-repairer` the tags
dialect in the almanac world. This module has the architecture, the tokenizer, the template and the path of the shipped
weights. They are trained by scripts/train_pico.py and scripts/train_pico_tags.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from rewright.core.errors import InputError

__all__ = ["PICO_MODELS", "TRAINED_RULES", "build_model", "build_tokenizer", "pico_path"]

PICO_MODELS: Final = ("pico", "pico-repairer", "pico-tags", "pico-tags-repairer")
TRAINED_RULES: Final = (
    "Then solve the task again from the start, better: call a tool only where it is needed, at most {calls} calls, "
    "think after each result, do not hedge, and give exactly one final answer."
)
"""The end of the prompt that the shipped repairers were trained with (`repair.rules`). Other rules reduce repairs:
with the default rules, pico-tags-repairer repaired 14 of 38 candidates instead of 28."""

CONTROL_TOKENS: Final = ("<|pad|>", "<|im_start|>", "<|im_end|>")
TAGS: Final = (
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
    "<answer>", "</answer>", "<tools>", "</tools>",
    "<search>", "</search>", "<code>", "</code>", "<result>", "</result>",
)  # fmt: skip

# Capitalised words (invented names) do not include a leading space, so that " Kalo" and "\"Kalo" share their tokens.
# Neither do words before an underscore: "get_age" is always "get_" and "age".
WORDS: Final = r"[a-z]+_| ?[a-z]+(?![a-z_])|[A-Z][a-z]*_?|\d|[^A-Za-z\d]+"

TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' -}}"
    "{%- if message.role == 'tool' -%}"
    "{{- 'user\n<tool_response>' + message.content + '</tool_response>' -}}"
    "{%- else -%}"
    "{{- message.role + '\n' + (message.content or '') -}}"
    "{%- if loop.first and tools -%}"
    "{{- '\n<tools>' -}}"
    "{%- for tool in tools -%}"
    "{%- set function = tool.function or tool -%}"
    "{{- '\n' + function.name + '(' + (function.parameters.properties or {}).keys() | join(', ') + ')' -}}"
    "{%- endfor -%}"
    "{{- '\n</tools>' -}}"
    "{%- endif -%}"
    "{%- for call in message.tool_calls or [] -%}"
    "{%- set function = call.function or call -%}"
    '{{- \'<tool_call>{"name": "\' + function.name + \'", "arguments": \' -}}'
    "{{- (function.arguments if function.arguments is string else function.arguments | tojson) + '}</tool_call>' -}}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{{- '<|im_end|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)


def build_tokenizer(texts: Iterable[str], *, vocabulary: int = 1024) -> Any:
    """Train a byte-level BPE tokenizer on `texts`. It has `vocabulary` entries in all, and a chat template."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AddedToken, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(TAGS),
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|im_end|>", bos_token=None, unk_token=None
    )
    wrapped.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    wrapped.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    wrapped.chat_template = TEMPLATE
    wrapped.model_max_length = 2048
    return wrapped


def build_model(tokenizer: Any, *, seed: int = 0, hidden: int = 128, layers: int = 4, heads: int = 4) -> Any:
    """Create a randomly initialised pico model for `tokenizer`.

    Args:
        tokenizer: from `build_tokenizer`.
        seed: seed of the initialisation.
        hidden: hidden size.
        layers, heads: numbers of layers and of attention heads.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden * 25 // 8,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def pico_path(name: str) -> Path:
    """Return the folder of a shipped pico model. Raises InputError for an unknown name."""
    if name not in PICO_MODELS:
        raise InputError(f"unknown pico model {name!r}: expected one of {', '.join(PICO_MODELS)}")
    return Path(__file__).parent / "models" / name
