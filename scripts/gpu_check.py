"""Check training and generation on this machine's GPU and measure them; see gpu_check.sh.

Two models: one with random weights and Qwen3-0.6B's configuration (with pico's tokenizer of 1024 entries), and pico.
For each: SFT, reward model and three RL steps in bfloat16 with float32 masters, and the share of the weights that
changed; tokens per second of the engine hf and the share of its time that sampling takes. Then one RL step of Rewright
and one of TRL's own GRPOTrainer with tools, on the same prompts, tool, batch and completion length.

A part that fails is recorded with its error, the others go on, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
import trl
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from rewright import __version__
from rewright.core.records import Gold, Task, ToolSpec
from rewright.dialects import get_dialect
from rewright.engines import hf
from rewright.engines.base import Request, Sampling
from rewright.engines.embedded import HFSettings
from rewright.engines.loading import load_model, load_tokenizer, load_trainable
from rewright.engines.sizes import shipped_config
from rewright.rendering.renderer import Renderer
from rewright.rollout.settings import Limits
from rewright.rollout.toolsets import open_toolsets
from rewright.sandbox.settings import SandboxSettings
from rewright.tasks.worlds.demonstrations import demonstrate
from rewright.tasks.worlds.town import generate
from rewright.tools.settings import ToolSettings
from rewright.training.settings import RewardSettings, RLSettings, SFTSettings
from rewright.training.trl.reward_model import train_reward_model
from rewright.training.trl.rl import RewrightTrainer, train_rl
from rewright.training.trl.sft import train_sft

CUDA = torch.cuda.is_available()
LARGE = "Qwen/Qwen3-0.6B"
DIALECT = get_dialect("hermes")


@dataclass(frozen=True)
class Sizes:
    """How much is done: on a GPU, and with `--tiny`."""

    rows: int = 64
    batch: int = 16
    tasks: int = 8
    generations: int = 8
    completion: int = 256
    requests: int = 64
    slots: int = 32


TINY = Sizes(rows=4, batch=2, tasks=2, generations=2, completion=8, requests=4, slots=4)


def main() -> int:
    """Run all parts and write the JSON. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Check training and generation on one GPU; see gpu_check.sh.")
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a CPU")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"), help="the JSON (default: gpu_check.json)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)  # of transformers about names that TRL uses
    if not CUDA and not arguments.tiny:
        print("error: no GPU that torch can use: expected one, or --tiny", file=sys.stderr)
        return 2
    sizes, started = TINY if arguments.tiny else Sizes(), time.perf_counter()
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if CUDA else "cpu",
        "device_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1) if CUDA else None,
        "tiny": arguments.tiny,
        "complete": False,  # unless the time was up
        "versions": {
            "rewright": __version__,
            **{module.__name__: module.__version__ for module in (torch, transformers, trl)},
        },
        "parts": {},
    }
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        large = make_large(Path(temporary) / "large", tiny=arguments.tiny)
        for name, model in (("random-qwen3-0.6b", str(large)), ("pico", "pico")):
            settings = HFSettings(path=model, dtype="bfloat16", slots=sizes.slots)
            work = Path(temporary) / name
            work.mkdir()
            parts: dict[str, Callable[[], dict[str, Any]]] = {
                "sft": lambda s=settings, w=work: check_sft(s, w, sizes),
                "reward": lambda s=settings, w=work: check_reward(s, w, sizes),
                "rl": lambda s=settings, w=work: check_rl(s, w, sizes),
                "engine": lambda s=settings: check_engine(s, sizes),
            }
            if model != "pico":
                parts["against_trl"] = lambda s=settings, w=work: check_against_trl(s, w, sizes)
            for part, check in parts.items():
                failed = not record(found["parts"], f"{name}/{part}", check) or failed
                found["seconds"] = round(time.perf_counter() - started, 1)
                write(arguments.out, found)  # kept if the time is up
        found["complete"] = True
        write(arguments.out, found)
    print(f"written: {arguments.out}")
    return 1 if failed else 0


def write(file: Path, found: dict[str, Any]) -> None:
    """Write what was found so far."""
    file.write_text(json.dumps(found, indent=2) + "\n")


def record(parts: dict[str, Any], name: str, check: Callable[[], dict[str, Any]]) -> bool:
    """Run one part and record what it found, its seconds and its peak memory. Returns False if it failed."""
    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    try:
        parts[name] = check()
    except Exception as problem:
        traceback.print_exc()
        parts[name] = {"error": f"{type(problem).__name__}: {problem}"}
    peak = torch.cuda.max_memory_allocated() if CUDA else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    parts[name] |= {"seconds": round(time.perf_counter() - started, 2), "peak_gib": round(peak / 2**30, 2)}
    print(f"{name}: {json.dumps(parts[name])}", file=sys.stderr)
    return "error" not in parts[name]


def make_large(folder: Path, *, tiny: bool, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Save a model with random weights and Qwen3-0.6B's configuration, pico's tokenizer and Qwen's chat template."""
    config = shipped_config(LARGE)
    tokenizer = load_tokenizer(HFSettings())
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja").read_text("utf-8")
    config.bos_token_id, config.eos_token_id, config.pad_token_id = (
        None, tokenizer.eos_token_id, tokenizer.pad_token_id,
    )  # fmt: skip
    if tiny:
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        for key, value in {**sizes, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 2048}.items():
            setattr(config, key, value)
        config.layer_types = config.layer_types[:2]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rows_of(settings: HFSettings, count: int) -> list[dict[str, list[int]]]:
    """Tokenized demonstrations of the town with their masks."""
    renderer = Renderer(load_tokenizer(settings), DIALECT)
    pairs = (renderer.encode_trajectory(task, demonstrate(task)) for task in generate("train", count))
    return [{"input_ids": ids, "mask": mask} for ids, mask in pairs]


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    """The saved weights of a model, by name."""
    path = load_model_folder(folder)
    return {name: value for file in path.glob("*.safetensors") for name, value in load_file(file).items()}


def load_model_folder(name: str | Path) -> Path:
    """The folder of a model by name or path."""
    from rewright.engines.loading import resolve_path

    return Path(resolve_path(str(name)))


def share_changed(before: str | Path, after: Path) -> float:
    """Share of the weights of both models that differ in float32."""
    old, new = weights(before), weights(after)
    names = [name for name in old.keys() & new.keys() if "lm_head" not in name]
    changed = sum(int((old[name].float() != new[name].float()).sum()) for name in names)
    return round(changed / sum(old[name].numel() for name in names), 4)


def check_sft(settings: HFSettings, work: Path, sizes: Sizes) -> dict[str, Any]:
    """SFT on demonstrations."""
    rows = rows_of(settings, sizes.rows)
    section = SFTSettings(
        batch_size=sizes.batch, micro_batch_size=max(1, sizes.batch // 8), epochs=2, learning_rate=1e-5,
        scheduler="constant", warmup=0,
    )  # fmt: skip
    history = train_sft(rows, settings, section, work / "sft", seed=0)
    losses = [row["loss"] for row in history if "loss" in row]
    return {
        "tokens": 2 * sum(len(row["input_ids"]) for row in rows),
        "loss": [losses[0], losses[-1]],
        "share_changed": share_changed(settings.path, work / "sft"),
    }


def check_reward(settings: HFSettings, work: Path, sizes: Sizes) -> dict[str, Any]:
    """The reward model on pairs of a demonstration and the same with its tokens in reverse order."""
    ids = [row["input_ids"] for row in rows_of(settings, sizes.rows)]
    pairs = [{"chosen_ids": one, "rejected_ids": one[::-1], "matched_format": True, "split": "train"} for one in ids]
    section = RewardSettings(
        batch_size=sizes.batch, micro_batch_size=max(1, sizes.batch // 8), epochs=1, learning_rate=1e-5
    )
    history, _ = train_reward_model(pairs, settings, section, work / "reward", seed=0)
    losses = [row["loss"] for row in history if "loss" in row]
    return {"loss": [losses[0], losses[-1]], "share_changed": share_changed(settings.path, work / "reward")}


def tool_tasks(count: int) -> list[Task]:
    """Questions with one tool."""
    schema = {
        "type": "function",
        "function": {
            "name": "age_of",
            "description": "Return the age of a person.",
            "parameters": {
                "type": "object",
                "properties": {"person": {"type": "string", "description": "The person."}},
                "required": ["person"],
            },
        },
    }
    tool = ToolSpec(schema=schema, source="def age_of(person):\n    return 36\n")
    return [
        Task(
            id=f"age-{number}",
            messages=({"role": "user", "content": f"What is the age of person {number}?"},),
            tools=(tool,),
            gold=Gold(answers=("36",)),
        )
        for number in range(count)
    ]


class StepTimer(TrainerCallback):
    """Seconds of each step, of the clock and of this process's CPU: generation, passes, optimizer."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.started = self.cpu_started = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        synchronize()
        self.started, self.cpu_started = time.perf_counter(), time.process_time()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        synchronize()
        self.seconds.append(round(time.perf_counter() - self.started, 3))
        self.cpu_seconds.append(round(time.process_time() - self.cpu_started, 3))


def synchronize() -> None:
    """Wait for the GPU."""
    if CUDA:
        torch.cuda.synchronize()


def rl_steps(
    settings: HFSettings, out: Path, sizes: Sizes, tasks: Sequence[Task], *, steps: int
) -> tuple[StepTimer, int]:
    """RL of Rewright. Returns the seconds of its steps and the number of generated tokens.

    Rollouts of random weights all earn the same; the entropy bonus moves the weights all the same.
    """
    timer, tokens = StepTimer(), 0

    class Timed(RewrightTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.add_callback(timer)

    def count(trajectories: Sequence[Any]) -> None:
        nonlocal tokens
        tokens += sum(len(turn.log_probs or ()) for one in trajectories for turn in one.turns)

    model, precision = load_trainable(settings, adapters=False)
    section = RLSettings(
        steps=steps, tasks_per_step=sizes.tasks, generations=sizes.generations, learning_rate=1e-5, entropy=0.01,
        micro_batch_size=max(2, sizes.tasks * sizes.generations // 4), keep_rollouts=False,
    )  # fmt: skip
    train_rl(
        tasks, model, load_tokenizer(settings), section, out, seed=0, dialect=DIALECT,
        tools=open_toolsets(ToolSettings(), SandboxSettings(level="process")),
        limits=Limits(turns=3, turn_tokens=sizes.completion, trajectory_tokens=sizes.completion),
        on_rollouts=count, trainer_class=Timed, precision=precision, slots=sizes.slots,
    )  # fmt: skip
    return timer, tokens


def check_rl(settings: HFSettings, work: Path, sizes: Sizes) -> dict[str, Any]:
    """Three steps of RL on the town."""
    tasks = list(generate("train", 3 * sizes.tasks, seed=5))
    timer, tokens = rl_steps(settings, work / "rl", sizes, tasks, steps=3)
    changed = share_changed(settings.path, work / "rl")
    return {"step_seconds": timer.seconds, "generated_tokens": tokens, "share_changed": changed}


def check_engine(settings: HFSettings, sizes: Sizes) -> dict[str, Any]:
    """Tokens per second of the engine hf, and the share of the time that sampling takes, without and with top-p."""
    tokenizer = load_tokenizer(settings)
    renderer = Renderer(tokenizer, DIALECT)
    prompts = [renderer.task_prompt_ids(task) for task in generate("train", sizes.requests, seed=3)]
    engine = hf.HFEngine(load_model(settings), tokenizer, slots=sizes.slots, end_ids=())
    sampling_seconds, original = 0.0, hf.sample

    def timed(*arguments: Any) -> Any:
        nonlocal sampling_seconds
        synchronize()
        started = time.perf_counter()
        result = original(*arguments)
        sampling_seconds += time.perf_counter() - started
        return result

    def requests(top_p: float, tokens: int) -> list[Request]:
        return [
            Request((), (), Sampling(top_p=top_p, max_tokens=tokens, seed=seed), token_ids=tuple(ids))
            for seed, ids in enumerate(prompts)
        ]

    async def all_of(wanted: list[Request]) -> int:
        made = await asyncio.gather(*(engine.generate(one) for one in wanted))
        return sum(len(one.token_ids or ()) for one in made)

    found: dict[str, Any] = {}
    hf.sample = timed
    try:
        asyncio.run(all_of(requests(0.9, 4)))  # kernels are loaded
        for top_p in (1.0, 0.9):
            sampling_seconds, started = 0.0, time.perf_counter()
            tokens = asyncio.run(all_of(requests(top_p, sizes.completion)))
            seconds = time.perf_counter() - started
            found[f"top_p={top_p}"] = {
                "tokens": tokens,
                "tokens_per_second": round(tokens / seconds, 1),
                "sampling_share": round(sampling_seconds / seconds, 4),
            }
    finally:
        hf.sample = original
        engine.shutdown()
    return found


def age_of(person: str) -> int:
    """Return the age of a person.

    Args:
        person: The person.
    """
    return 36


def no_reward(completions: list[Any], **_: Any) -> list[float]:
    """The same reward for all."""
    return [0.0] * len(completions)


def check_against_trl(settings: HFSettings, work: Path, sizes: Sizes, *, steps: int = 2) -> dict[str, Any]:
    """Steps of Rewright and of TRL's GRPOTrainer on the same work; the first of each only warms up."""
    tasks = tool_tasks(steps * sizes.tasks)
    ours, our_tokens = rl_steps(settings, work / "ours", sizes, tasks, steps=steps)
    timer, batch = StepTimer(), sizes.tasks * sizes.generations
    micro = max(2, batch // 4)
    config = GRPOConfig(
        output_dir=str(work / "trl"), per_device_train_batch_size=micro, gradient_accumulation_steps=batch // micro,
        num_generations=sizes.generations, max_completion_length=sizes.completion, max_steps=steps, learning_rate=1e-5,
        entropy_coef=0.01, bf16=settings.dtype == "bfloat16", use_cpu=not CUDA, report_to="none",
        save_strategy="no", logging_steps=1,
        disable_tqdm=True, dataloader_pin_memory=False, seed=0, loss_type="grpo",
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=load_trainable(settings, adapters=False)[0],
        args=config,
        train_dataset=datasets.Dataset.from_list([{"prompt": list(task.messages)} for task in tasks]),
        processing_class=load_tokenizer(settings),
        reward_funcs=no_reward,
        tools=[age_of],
        callbacks=[timer],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    means = [row["completions/mean_length"] for row in trainer.state.log_history if "completions/mean_length" in row]
    speedup = statistics.median(timer.seconds[1:]) / statistics.median(ours.seconds[1:])
    return {
        "rewright": steps_of(ours, our_tokens),
        "trl": steps_of(timer, round(sum(means) * batch)),
        "speedup_after_the_first_step": round(speedup, 2),
    }


def steps_of(timer: StepTimer, tokens: int) -> dict[str, Any]:
    """What is recorded of the steps of a trainer."""
    return {"step_seconds": timer.seconds, "step_cpu_seconds": timer.cpu_seconds, "generated_tokens": tokens}


if __name__ == "__main__":
    sys.exit(main())
