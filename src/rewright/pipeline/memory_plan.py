"""The GPU memory and the tokens of a recipe's stages, computed from the recipe and the sizes of its models.

This is arithmetic, not a measurement. It follows what the stages do: trained weights are float32, the computation is
bfloat16 by autocast (the reward model: float32), the optimizer is AdamW, activations are checkpointed (TRL's default),
and in RL a bfloat16 copy of the policy generates the rollouts. Sequences are taken to be as long as the recipe allows.

On several GPUs, weights, gradients and optimizer state are taken to be sharded (FSDP), and vLLM to generate on the same
GPUs, since the engine hf does not generate with sharded weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from rewright.core.errors import InputError
from rewright.engines.embedded import HFSettings
from rewright.engines.sizes import ModelSize, read_size
from rewright.recipe.schema import Recipe
from rewright.training.group_credit import uses_reward_model
from rewright.training.settings import RewardSettings, RLSettings, SFTSettings

__all__ = [
    "GIB",
    "PARTS",
    "USABLE",
    "Hardware",
    "Plan",
    "StagePlan",
    "activation_bytes",
    "check_memory",
    "misfit",
    "plan_stages",
]

GIB: Final = 1 << 30
USABLE: Final = 0.95
"""Share of a GPU's memory that a stage may need; the rest is fragmentation."""
PARTS: Final = (
    "weights", "master weights", "gradients", "optimizer", "rollout weights", "reference model", "reward model",
    "KV cache", "activations", "vLLM", "CUDA",
)  # fmt: skip
"""What takes memory, in the order of the table. `weights`: in the dtype of the computation."""
CUDA_BYTES: Final = 3 * GIB // 2
"""Context, kernels and workspaces of CUDA and its libraries."""
DEFAULT_SLOTS: Final = 64
"""Slots in RL of a model whose engine has none."""
SLOT_STEP: Final = 8
VLLM_SHARE: Final = 0.3
"""Default of `rl.vllm.gpu_memory_utilization`."""
SCORED_TOKENS: Final = 16384
"""Tokens of a batch of the reward model in RL (the default of RewardModel)."""

GENERATED: Final = ("generation", "repair")
"""What the stages that generate with a local model are called in the plan: all those of one model are one row."""


class Hardware(msgspec.Struct, frozen=True):
    """The GPUs that a plan is for. `memory` is that of one GPU in GiB."""

    gpus: int = 1
    memory: float = 80.0
    prompt_tokens: int = 1024
    """Length of a task's prompt with its tool schemas, which the recipe does not know."""


class StagePlan(msgspec.Struct, frozen=True):
    """What one stage takes of one GPU."""

    stage: str
    parts: dict[str, float]
    """GiB by part."""
    total: float
    fits: bool
    tokens_per_step: int | None
    """At most; None for a stage that does not train."""
    change: tuple[str, ...] = ()
    """Changes of the recipe or the hardware with which it fits, each by itself (or all together, if that is said)."""


class Plan(msgspec.Struct, frozen=True):
    """The stages of a recipe on some hardware."""

    model: str
    parameters: int
    hardware: Hardware
    stages: tuple[StagePlan, ...]
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether every stage fits."""
        return all(stage.fits for stage in self.stages)


def plan_stages(recipe: Recipe, hardware: Hardware) -> Plan:
    """Compute what each stage of a recipe takes. Raises InputError for a model whose configuration is not found."""
    names = list(_stage_names(recipe))
    if not names:
        raise InputError(
            f"stages: {', '.join(recipe.stages)}: none of them trains, or generates with a model in this process "
            "(engine hf): expected one that takes memory of a GPU"
        )
    model, where = recipe.model, "model"
    if names == ["repair"] and recipe.repair.model is not None:
        model, where = recipe.repair.model, "repair.model"
    size = read_size(model, where)
    stages = tuple(_with_changes(recipe, hardware, name) for name in names)
    return Plan(model.path, size.parameters, hardware, stages, tuple(_notes(recipe, hardware)))


def check_memory(recipe: Recipe, hardware: Hardware) -> dict[str, float]:
    """Return the GiB per GPU of each stage. Raises InputError for the first stage that does not fit."""
    plan = plan_stages(recipe, hardware)
    for stage in plan.stages:
        if not stage.fits:
            raise InputError(misfit(stage, hardware))
    return {stage.stage: round(stage.total, 2) for stage in plan.stages}


def misfit(stage: StagePlan, hardware: Hardware) -> str:
    """Say in one line why a stage does not fit, and with which change it does."""
    largest = sorted(stage.parts.items(), key=lambda part: -part[1])[:2]
    parts = ", ".join(f"{name} {gib:.1f}" for name, gib in largest)
    expected = ", or ".join(stage.change) or "a smaller model, or larger GPUs"
    return (
        f"stage {stage.stage} takes {stage.total:.1f} GiB of each GPU ({parts}), and {USABLE * hardware.memory:.1f} of "
        f"{hardware.memory:g} GiB can be used: expected {expected}"
    )


def activation_bytes(size: ModelSize, *, checkpointed: bool, bytes_per_number: int = 2) -> float:
    """Bytes per token that a forward pass keeps for the backward pass, without the output layer.

    The residual stream is float32, as are the inputs of the norms; the inputs of the matrix products have
    `bytes_per_number`. The coefficients are those of transformers' Qwen3 and Qwen2 layers with scaled-dot-product
    attention. With checkpointing only the input of each layer is kept, and one layer is computed again at a time.
    """
    query, key = (18, 9) if size.query_norms else (12, 3)
    half = 24 * size.hidden + query * size.query + key * size.key_value + 8.7 * size.feed_forward
    layer = half if bytes_per_number == 2 else 1.6 * half
    return 4 * size.hidden * size.layers + layer if checkpointed else layer * size.layers


def _stage_names(recipe: Recipe) -> Iterator[str]:
    generates = any(stage.startswith("eval_") or stage == "synth" for stage in recipe.stages)
    if generates and isinstance(recipe.model, HFSettings):
        yield "generation"
    if "repair" in recipe.stages and isinstance(recipe.repair.model, HFSettings):
        yield "repair"
    yield from (name for name in ("sft", "reward", "rl") if name in recipe.stages)


def _stage(recipe: Recipe, hardware: Hardware, name: str) -> StagePlan:
    tokens: int | None = None
    if name in GENERATED:
        model = recipe.model if name == "generation" else recipe.repair.model or recipe.model
        size = read_size(model, "model" if name == "generation" else "repair.model")
        parts = {"weights": 2.0 * size.parameters, "KV cache": _cache_bytes(recipe, hardware, model, size)}
    else:
        size = read_size(recipe.model, "model")
        section = recipe.sft if name == "sft" else recipe.reward if name == "reward" else recipe.rl
        parts = _training_bytes(recipe, hardware, section, size)
        tokens = _sequences(section) * _length(recipe, hardware, section, size)
    parts["CUDA"] = CUDA_BYTES
    gib = {part: parts[part] / GIB for part in PARTS if parts.get(part)}
    total = sum(gib.values())
    return StagePlan(name, gib, total, total <= USABLE * hardware.memory, tokens)


def _training_bytes(
    recipe: Recipe, hardware: Hardware, section: SFTSettings | RewardSettings | RLSettings, size: ModelSize
) -> dict[str, float]:
    """Bytes of one GPU by part."""
    shards = hardware.gpus
    is_reward = isinstance(section, RewardSettings)
    width = 4 if is_reward else 2  # bytes of a number in the computation
    total = size.parameters - (size.head_parameters if is_reward else 0)
    trained = total if section.lora_rank is None else section.lora_rank * size.linear_dimensions
    # With FSDP the largest unit is gathered at once: two layers (one is fetched ahead), embedding and output layer.
    gathered = 2 * size.layer_parameters + size.embedding_parameters + size.head_parameters
    parts: dict[str, float] = {
        "master weights": 4 * trained / shards,
        "gradients": 4 * trained / shards,
        "optimizer": _optimizer_bytes(section.arguments) * trained / shards,
    }
    if section.lora_rank is not None:
        parts["weights"] = width * total / shards + (width * gathered if shards > 1 else 0)
    elif shards > 1:
        parts["weights"] = width * gathered
    elif not is_reward:
        parts["weights"] = width * total  # autocast keeps its copies from the forward to the backward pass
    length, rows = _length(recipe, hardware, section, size), _rows_of_a_pass(section, shards)
    checkpointed = bool(section.arguments.get("gradient_checkpointing", True))
    parts["activations"] = rows * length * activation_bytes(size, checkpointed=checkpointed, bytes_per_number=width)
    if isinstance(section, SFTSettings) and section.arguments.get("loss_type") != "chunked_nll":
        parts["activations"] += rows * length * size.vocabulary * 10  # logits, in float32, and their gradient
    if isinstance(section, RLSettings):
        parts |= _rl_bytes(recipe, hardware, section, size)
    return parts


def _rl_bytes(recipe: Recipe, hardware: Hardware, rl: RLSettings, size: ModelSize) -> dict[str, float]:
    shards, parts = hardware.gpus, dict[str, float]()
    if rl.beta > 0 and rl.lora_rank is None:
        parts["reference model"] = 4 * size.parameters / shards
    if uses_reward_model(rl) and recipe.reward.url is None and "reward" in recipe.stages:
        classifier = size.parameters - size.head_parameters
        scored = SCORED_TOKENS * activation_bytes(size, checkpointed=True, bytes_per_number=4) / size.layers
        parts["reward model"] = 4 * classifier + scored
    engine = _rl_engine(recipe, hardware)
    if engine == "hf":
        parts["rollout weights"] = 2 * size.parameters if rl.lora_rank is None else 0
        parts["KV cache"] = _cache_bytes(recipe, hardware, recipe.model, size)
    elif engine != "server":
        share = (rl.vllm.gpu_memory_utilization if rl.vllm else None) or VLLM_SHARE
        sequence = _length(recipe, hardware, rl, size) * _cache_bytes_per_token(size)
        parts["vLLM"] = max(share * hardware.memory * GIB, 2 * size.parameters + sequence)
    return parts


def _rl_engine(recipe: Recipe, hardware: Hardware) -> str:
    """The engine of the rollouts: that of the recipe, else `hf` on one GPU and vLLM on several."""
    default = "hf" if hardware.gpus == 1 else "colocate"
    named = str(getattr(recipe.rl, "engine", None) or default)
    return default if named == "hf" else named


def _rows_of_a_pass(section: SFTSettings | RewardSettings | RLSettings, shards: int) -> int:
    """Sequences of a forward pass on one GPU."""
    if isinstance(section, RLSettings):
        batch = section.tasks_per_step * section.generations // section.updates_per_step
    else:
        batch = section.batch_size
    rows = min(section.micro_batch_size or batch, -(-batch // shards))
    return 2 * rows if isinstance(section, RewardSettings) else rows


def _sequences(section: SFTSettings | RewardSettings | RLSettings) -> int:
    """Sequences of a step."""
    if isinstance(section, RLSettings):
        return section.tasks_per_step * section.generations
    return section.batch_size * (2 if isinstance(section, RewardSettings) else 1)


def _length(
    recipe: Recipe, hardware: Hardware, section: SFTSettings | RewardSettings | RLSettings | None, size: ModelSize
) -> int:
    """Length of the longest sequence, in tokens."""
    context = getattr(recipe.model, "max_length", None) or size.context
    after = recipe.limits.trajectory_tokens
    longest = context if after is None else min(context, hardware.prompt_tokens + after)
    limit = getattr(section, "max_length", None)
    return int(longest if limit is None else min(longest, limit))


def _cache_bytes_per_token(size: ModelSize) -> int:
    return 2 * 2 * size.key_value * size.layers


def _cache_bytes(recipe: Recipe, hardware: Hardware, model: Any, size: ModelSize) -> float:
    """Bytes of the KV cache of the engine hf: all slots are as long as the longest sequence."""
    rows = -(-getattr(model, "slots", DEFAULT_SLOTS) // SLOT_STEP) * SLOT_STEP
    return rows * _length(recipe, hardware, None, size) * _cache_bytes_per_token(size)


def _optimizer_bytes(arguments: dict[str, Any]) -> int:
    return 2 if "8bit" in str(arguments.get("optim", "")) else 8


def _with_changes(recipe: Recipe, hardware: Hardware, name: str) -> StagePlan:
    plan = _stage(recipe, hardware, name)
    if plan.fits:
        return plan
    options = list(_changes(recipe, hardware, name))
    alone = [words for words, changed, on in options if _stage(changed, on, name).fits]
    if not alone:
        together, words = recipe, list[str]()
        for text, _, on in options:
            key, _, value = text.partition("=")
            if on is not hardware or key == text:
                continue
            words.append(text)
            together = _changed(together, key, int(value))
            if _stage(together, hardware, name).fits:
                alone = [" and ".join(words)]
                break
    return msgspec.structs.replace(plan, change=tuple(alone))


def _changes(recipe: Recipe, hardware: Hardware, name: str) -> Iterator[tuple[str, Recipe, Hardware]]:
    """What may help: the change in words, and the recipe and the hardware with it."""
    for key, value in _smaller(recipe, hardware, name):
        yield f"{key}={value}", _changed(recipe, key, value), hardware
    if name not in GENERATED:
        for gpus in (2, 4, 8, 16, 32, 64):
            more = msgspec.structs.replace(hardware, gpus=gpus)
            if gpus > hardware.gpus and _stage(recipe, more, name).fits:
                yield f"{gpus} GPUs", recipe, more
                break


def _smaller(recipe: Recipe, hardware: Hardware, name: str) -> Iterator[tuple[str, int]]:
    model: Any = recipe.repair.model if name == "repair" and recipe.repair.model is not None else recipe.model
    if (
        hasattr(model, "slots")
        and (name != "rl" or _rl_engine(recipe, hardware) == "hf")
        and name not in ("sft", "reward")
    ):
        key, slots = "model" if model is recipe.model else "repair.model", model.slots
        while slots > SLOT_STEP:
            slots = max(SLOT_STEP, slots // 2)
            if slots == SLOT_STEP or _stage(_changed(recipe, f"{key}.slots", slots), hardware, name).fits:
                yield f"{key}.slots", slots
                break
    if name not in GENERATED:
        section = getattr(recipe, name)
        rows = _rows_of_a_pass(section, hardware.gpus) // (2 if name == "reward" else 1)
        if rows > 1:
            yield f"{name}.micro_batch_size", 1
        if not section.arguments.get("gradient_checkpointing", True):
            yield f"{name}.arguments.gradient_checkpointing", 1
        if section.lora_rank is None:
            yield f"{name}.lora_rank", 16
        if name == "rl" and section.beta > 0 and section.lora_rank is None:
            yield "rl.beta", 0
    tokens = recipe.limits.trajectory_tokens
    while tokens is not None and tokens > 1024:
        tokens //= 2
        if tokens <= 1024 or _stage(_changed(recipe, "limits.trajectory_tokens", tokens), hardware, name).fits:
            yield "limits.trajectory_tokens", tokens
            break


def _changed(settings: Any, key: str, value: int) -> Any:
    """A copy of settings with another value of a dotted key."""
    first, _, rest = key.partition(".")
    if isinstance(settings, dict):
        return {**settings, first: value}
    below = _changed(getattr(settings, first), rest, value) if rest else value
    return msgspec.structs.replace(settings, **{first: below})


def _notes(recipe: Recipe, hardware: Hardware) -> Iterator[str]:
    yield (
        f"sequences are taken to be {hardware.prompt_tokens} tokens of prompt (--prompt-tokens) and "
        f"{recipe.limits.trajectory_tokens or 'as many as the context has'} after it"
    )
    if hardware.gpus > 1:
        yield f"the training state is taken to be sharded over {hardware.gpus} GPUs (FSDP)"
        if "rl" in recipe.stages and getattr(recipe.rl, "engine", "hf") == "hf":
            yield "vLLM is taken to generate on the same GPUs: the engine hf does not generate with sharded weights"
