"""Small real tokenizers, made in a moment: pico's from a handful of tasks, and a byte-level one for any template."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from rewright.engines.pico import build_tokenizer
from rewright.tasks.worlds.demonstrations import demonstrate
from rewright.tasks.worlds.town import generate

QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""A template that knows no tools and writes any role (SmolLM2's kind)."""


@cache
def pico_tokenizer() -> Any:
    """Pico's tokenizer and template, trained on a few tasks."""
    texts = []
    for task in generate("train", 40, profile="all"):
        texts += [str(message["content"]) for message in task.messages]
        texts += [turn.text for turn in demonstrate(task).turns]
    return build_tokenizer(texts, vocabulary=512)


def chat_tokenizer(template: str, *, added: Sequence[str] = QWEN_TAGS, merges: Sequence[tuple[str, str]] = ()) -> Any:
    """A byte-level tokenizer with Qwen's control tokens, the added tokens, and a chat template.

    `merges` are pairs of bytes that are one token, also over the boundaries of words (Qwen's: `>` and a line break).
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*alphabet, *("".join(pair) for pair in merges)]
    inner = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(vocabulary)}, merges=list(merges)))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not merges)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in QWEN_SPECIAL])
    inner.add_tokens([AddedToken(token, normalized=False) for token in added])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = template
    return tokenizer
