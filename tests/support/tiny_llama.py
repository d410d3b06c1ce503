"""A tiny random Llama with a byte-level tokenizer and Qwen2.5's chat template, saved as a model folder.

Its tokenizer has single tokens for the tags of a tool call; the template is the one that ships with TRL, which TRL
recognises as able to call tools. Weights are random: it can be trained, not talked to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONTROL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]


def make_tokenizer(template: str) -> Any:
    """The byte-level tokenizer with a chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    inner.add_tokens([AddedToken(token, normalized=False) for token in ("<tool_call>", "</tool_call>")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=4096
    )
    tokenizer.chat_template = template
    return tokenizer


def make_tiny_llama(folder: Path) -> Path:
    """Write the model into `folder` and return it."""
    import torch
    import trl
    from transformers import LlamaConfig, LlamaForCausalLM

    templates = Path(trl.__file__).parent / "chat_templates"
    tokenizer = make_tokenizer((templates / "qwen2_5.jinja").read_text(encoding="utf-8"))
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=4096,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
