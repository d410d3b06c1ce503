"""`rl.share_prompts`: the prompt of a group is computed once, and every number stays what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rewright.core.errors import InputError
from rewright.training.settings import RLSettings, check_batches

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

Batch = tuple[Any, Any, int]


def groups(prompts: list[int], completions: list[list[int]], *, vocabulary: int = 500) -> Batch:
    """Token ids, attention mask and completion width of groups, rows of different groups taken in turn."""
    generator = torch.Generator().manual_seed(0)

    def draw(length: int) -> Any:
        return torch.randint(5, vocabulary, (length,), generator=generator)

    rows = []
    for length, group in zip(prompts, completions, strict=True):
        prompt = draw(length)
        rows += [(index, prompt, draw(own)) for index, own in enumerate(group)]
    rows.sort(key=lambda row: row[0])
    before, after = max(prompts), max(max(group) for group in completions)
    ids = torch.zeros(len(rows), before + after, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, (_, prompt, own) in enumerate(rows):
        window = slice(before - len(prompt), before + len(own))
        ids[number, window], mask[number, window] = torch.cat([prompt, own]), 1
    return ids, mask, after


def policies() -> dict[str, Any]:
    """Models with learned weights and random ones of other families, in float32."""
    import transformers

    from rewright.engines.embedded import HFSettings
    from rewright.engines.loading import load_model

    torch.manual_seed(0)
    small: dict[str, Any] = {
        "vocab_size": 500, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    }  # fmt: skip
    return {
        "pico": load_model(HFSettings(path="pico")),
        "qwen3": transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**small)),
        "olmo2": transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**small)),
    }


@pytest.mark.parametrize("name", ["pico", "qwen3", "olmo2"])
def test_log_probabilities_entropies_and_gradients_are_those_of_separate_rows(name: str) -> None:
    from accelerate import Accelerator
    from trl import GRPOTrainer
    from trl.trainer.utils import add_fused_lm_head

    from rewright.training.trl.rl import RewrightTrainer

    ids, mask, kept = groups([40, 9, 1], [[4, 30, 7, 12], [1, 5], [8, 3, 3]])
    model = policies()[name]
    add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))  # as GRPOTrainer does
    seen: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda _module, given, _out: seen.append(given[0].numel()))
    trainer = RewrightTrainer.__new__(RewrightTrainer)
    trainer.accelerator = Accelerator(cpu=True)
    trainer._shares_prompts = True
    results, tokens = [], []
    weights = torch.linspace(-1, 1, kept)  # as advantages do: no two positions count the same
    for kind in (GRPOTrainer, RewrightTrainer):
        seen.clear()
        log_probs, entropies, _ = kind._get_per_token_logps_and_entropies(
            trainer, model, ids, mask, kept, compute_entropy=True
        )
        own = mask[:, -kept:]
        model.zero_grad()
        ((log_probs + 0.3 * entropies) * own * weights).sum().backward()
        gradient = torch.cat([weight.grad.flatten() for weight in model.parameters()])
        results.append((log_probs.detach() * own, entropies.detach() * own, gradient))
        tokens.append(sum(seen))
    for apart, shared in zip(*results, strict=True):
        torch.testing.assert_close(shared, apart, atol=2e-5, rtol=2e-4)
    # the prompts once (their last token for each completion), and the completions
    assert tokens[1] == 39 + 8 + 0 + 9 + 73
    assert tokens[1] < tokens[0] / 3


def test_rows_of_a_group_come_together_and_every_update_keeps_its_rows() -> None:
    from rewright.training.trl.shared_prompt import groups_together

    rows = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    whole = {"prompt_ids": (rows % 4)[:, None].repeat(1, 3), "row": rows, "advantages": rows[:, None] * 1.0}
    batches = [{key: value.chunk(4)[index] for key, value in whole.items()} for index in range(4)]
    for batch in batches:
        batch["num_items_in_batch"], batch["num_images"] = torch.tensor(7), None
    one_update = groups_together(batches, 4)
    assert [sorted(batch["row"].tolist()) for batch in one_update] == [[g, g + 4, g + 8, g + 12] for g in range(4)]
    for batch in one_update:
        assert batch["advantages"][:, 0].tolist() == batch["row"].tolist()
        assert (batch["prompt_ids"][:, 0] == batch["row"] % 4).all()
        assert batch["num_items_in_batch"] == 7
        assert batch["num_images"] is None
    two_updates = groups_together(batches, 2)
    for first in (0, 2):
        before = torch.cat([batch["row"] for batch in batches[first : first + 2]])
        after = torch.cat([batch["row"] for batch in two_updates[first : first + 2]])
        assert sorted(before.tolist()) == sorted(after.tolist())


@pytest.mark.parametrize("updates", [1, 2])
def test_rl_with_shared_prompts_makes_the_same_policy(tmp_path: Path, updates: int) -> None:
    """A step of real RL on the town, whose rollouts have several turns: weights, losses, entropies, gaps."""
    from safetensors.torch import load_file

    from rewright.dialects.hermes import Hermes
    from rewright.engines.embedded import HFSettings
    from rewright.engines.loading import load_model, load_tokenizer
    from rewright.rollout.settings import Limits
    from rewright.tasks.worlds.town import generate
    from rewright.tools import FunctionTools
    from rewright.training.trl.rl import train_rl

    tasks, policy = list(generate("train", 8, seed=3)), HFSettings(path="pico", slots=16)
    found = {}
    for shares in (False, True):
        settings = RLSettings(
            steps=1, tasks_per_step=4, generations=4, micro_batch_size=8, updates_per_step=updates, entropy=0.01,
            learning_rate=0.1, share_prompts=shares,
            arguments={"gradient_checkpointing": shares, "optim": "sgd"},  # AdamW's first step has the sign alone
        )  # fmt: skip
        out = tmp_path / str(shares)
        history = train_rl(
            tasks, load_model(policy), load_tokenizer(policy), settings, out, seed=0, dialect=Hermes(),
            tools=FunctionTools(level="process", wall_seconds=60.0), limits=Limits(turns=4, trajectory_seconds=None),
        )  # fmt: skip
        found[shares] = (load_file(out / "model.safetensors"), history)
    before = load_model(policy).state_dict()
    (apart, apart_rows), (shared, shared_rows) = found[False], found[True]
    for name, weight in apart.items():
        moved = (weight - before[name]).abs().max()
        assert (shared[name] - weight).abs().max() < 0.01 * moved + 1e-6, name
    for first, second in zip(apart_rows, shared_rows, strict=True):
        for key in ("entropy", "rewright/success", "rewright/turn_reward", "rewright/sampler_gap_mean"):
            assert first.get(key) == pytest.approx(second.get(key), abs=2e-3), key


def test_what_prompts_cannot_be_shared_with_is_said_before_the_run() -> None:
    import transformers

    from rewright.training.trl.shared_prompt import sharing_problem

    with pytest.raises(InputError, match=r"rl\.micro_batch_size is 12: expected a multiple of rl.generations, 8"):
        check_batches("rl", RLSettings(share_prompts=True, micro_batch_size=12, tasks_per_step=3))
    with pytest.raises(InputError, match=r"rl\.share_prompts needs one process"):
        check_batches("rl", RLSettings(share_prompts=True), processes=2)
    check_batches("rl", RLSettings(share_prompts=True, micro_batch_size=16))
    assert "sliding_attention" in str(sharing_problem(transformers.Gemma3TextConfig()))
    window = transformers.MistralConfig(sliding_window=64)
    assert "sliding window of 64" in str(sharing_problem(window))
    assert sharing_problem(window, 64) is None
    eager = transformers.Qwen3Config()
    eager._attn_implementation = "flash_attention_2"
    assert "flash_attention_2" in str(sharing_problem(eager))
