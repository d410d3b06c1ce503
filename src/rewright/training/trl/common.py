"""Code shared by the TRL trainers: arguments from recipe sections, progress, checkpoints, atomic saving."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from transformers import PrinterCallback, TrainerCallback, set_seed

from rewright.core.errors import InputError, RewrightError, StorageError, TrainingError
from rewright.core.progress import Bar
from rewright.engines.loading import quiet_loading
from rewright.training.checkpoints import checkpoint_folder, discard_checkpoints
from rewright.training.launch import rank, world_size
from rewright.training.settings import SectionSettings
from rewright.training.trackers import PROJECT, current_stage, trl_integrations
from rewright.training.trl.output_layer import labelled_positions_only
from rewright.training.trl.resumed import check_settings, store_settings
from rewright.training.trl.tracking import tracking

__all__ = ["MetricsCallback", "build_config", "config_arguments", "lora_config", "quiet", "save", "train"]

T = TypeVar("T")

SUPPRESSED_WARNINGS = (r"`(is_)?gradient_checkpointing\w*` is deprecated", "You are using 'rollout_func'")
"""Warnings about internals of TRL 1.16 and transformers, which users cannot act on."""


def config_arguments(
    settings: SectionSettings, out: Path, seed: int, *, batch_size: int, precision: str = "float32", **specific: Any
) -> dict[str, Any]:
    """Return the keyword arguments of a TRL config.

    Args:
        settings: the recipe section; its `arguments` override all others.
        out: folder of the model.
        seed: seed of training and data order.
        batch_size: sequences (or pairs) per optimizer step, divided over the processes.
        precision: compute dtype, by autocast if it is not that of the trained weights, float32.
        specific: arguments of this config.

    Raises InputError if the processes or `micro_batch_size` do not divide `batch_size`.
    """
    processes = world_size()
    if batch_size % processes:
        raise InputError(f"a step of {batch_size} sequences is not a multiple of the {processes} processes")
    batch_size //= processes
    micro = settings.micro_batch_size or batch_size
    if batch_size % micro:
        raise InputError(f"a step of {batch_size} sequences is not a multiple of micro_batch_size {micro}")
    stage = current_stage(out)
    common: dict[str, Any] = {
        "output_dir": str(checkpoint_folder(out)),
        "learning_rate": settings.learning_rate,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": batch_size // micro,
        "logging_steps": 1,
        "report_to": trl_integrations(settings.report_to) or "none",
        "project": stage.project or PROJECT,
        "run_name": stage.name,
        "save_strategy": "steps" if settings.save_steps else "no",
        "save_steps": settings.save_steps or 500,
        "save_total_limit": 1,
        "seed": seed,
        "data_seed": seed,
        "disable_tqdm": True,
        "bf16": precision == "bfloat16",
        "fp16": precision == "float16",
        "use_cpu": precision != "float32" and not torch.cuda.is_available(),
        "dataloader_pin_memory": False,
    }
    if processes > 1:
        common["ddp_timeout"] = DISTRIBUTED_SECONDS
    return {**common, **specific, **settings.arguments}


def build_config(kind: Callable[..., T], section: str, values: dict[str, Any]) -> T:
    """Build a TRL config. Raises InputError, which mentions the recipe section, for values that TRL rejects."""
    try:
        return kind(**values)
    except (TypeError, ValueError, KeyError, ImportError, AttributeError, RuntimeError, OSError) as problem:
        reason = " ".join(str(problem).split())[:300]
        raise InputError(f"{section}: TRL rejects these settings: {reason}") from problem


def lora_config(settings: SectionSettings, task: str) -> Any:
    """Return a LoRA configuration (alpha: twice the recipe's rank; all linear layers); None without a rank."""
    if settings.lora_rank is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=settings.lora_rank, lora_alpha=2 * settings.lora_rank, target_modules="all-linear", task_type=task
    )


DISTRIBUTED_SECONDS: Final = 7 * 24 * 3600
"""Time limit of a collective. A process that fails is noticed at once by the process that launched the group, and the
rollouts of one process may take long."""
NONDETERMINISTIC_KEYS = ("step_time", "total_flos", "epoch", "num_tokens")
"""Logged keys that are removed: times, and counters that a resumed run restarts."""


class MetricsCallback(TrainerCallback):  # type: ignore[misc]
    """Records logged rows that contain `key` and advances a progress bar."""

    def __init__(self, bar: Bar, key: str = "loss") -> None:
        self.bar, self.key = bar, key
        self.rows: list[dict[str, Any]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Record a row of metrics."""
        if logs and self.key in logs:
            self.rows.append({"step": state.global_step, **logs})

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Advance the progress bar after an optimizer step."""
        detail = f"{self.key} {self.rows[-1][self.key]:.3f}" if self.rows else ""
        self.bar.step(detail=detail)


def train(
    trainer: Any,
    settings: SectionSettings,
    out: Path,
    seed: int,
    *,
    label: str,
    key: str = "loss",
    hint: str = "the learning rate is 0",
) -> list[dict[str, Any]]:
    """Run a TRL trainer, resuming from its last checkpoint if any. Returns all logged rows, earlier ones included.

    Args:
        trainer: a trainer of TRL.
        settings: the recipe section that it was made of.
        out: folder of the model.
        seed: seed of training.
        label: name of the stage in messages.
        key: the metric that is shown; rows without it are dropped.
        hint: possible cause if no weight changes, for the message.

    If rollouts raise (an engine, a server or a judge failed), a checkpoint is saved first, so that no finished step is
    lost. Raises InputError for settings with which the checkpoint cannot be loaded, and TrainingError if training made
    no step, changed no weight, or produced NaN or infinite weights.
    """
    processes = trainer.accelerator.num_processes
    set_seed(seed + trainer.accelerator.process_index)
    checkpoint = _last_checkpoint(checkpoint_folder(out), processes) if rank() == 0 else None
    if processes > 1:  # the main process removes incomplete checkpoints
        from accelerate.utils import broadcast_object_list

        checkpoint = broadcast_object_list([checkpoint])[0]
    total = _steps(trainer, label)
    if total == 1:
        trainer.args.warmup_steps = 0  # warm-up starts at learning rate 0, so a single step would change nothing
    before = _checksums(trainer)
    if rank() == 0:
        folder = checkpoint_folder(out)
        if checkpoint is None:
            store_settings(folder, settings, seed, before)
        else:
            check_settings(folder, settings, seed, before, label=label, steps=(_step_of(checkpoint), total))
    with Bar(f"{label} steps", total) as bar:
        callback = MetricsCallback(bar, key)
        trainer.add_callback(callback)
        trainer.remove_callback(PrinterCallback)  # it prints to standard output, which is reserved for results
        if checkpoint is not None:
            bar.step(_step_of(checkpoint))
            if _step_of(checkpoint) >= total:
                # It would make another step, unless an epoch ends here: it counts the steps after each of them.
                trainer._run_epoch = lambda **_: None
        tracked = tracking(trainer, out, None if checkpoint is None else _step_of(checkpoint))
        with _writing(out), tracked, labelled_positions_only():
            try:
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            except StorageError:
                raise
            except RewrightError:
                # Raised by rollouts or their scoring, between two optimizer steps, so the state is consistent.
                together = processes == 1 or getattr(trainer, "failed_together", False)
                if together and trainer.state.global_step > (0 if checkpoint is None else _step_of(checkpoint)):
                    trainer._save_checkpoint(trainer.model, trial=None)
                    trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)
                    trainer.accelerator.wait_for_everyone()
                raise
    _check_trained(trainer, before, label, hint)
    rows = [dict(row) for row in trainer.state.log_history if key in row]
    for row in rows:
        for name in NONDETERMINISTIC_KEYS:
            row.pop(name, None)
    return rows


def _local(weight: torch.Tensor) -> torch.Tensor:
    """The part of a weight tensor that this process has: all of it, unless FSDP2 divides the tensor."""
    to_local = getattr(weight, "to_local", None)
    return weight.detach() if to_local is None else to_local().detach()


def _is_divided(trainer: Any) -> bool:
    """Whether each process has a part of the weights only (FSDP2, ZeRO-3), or had before `_gather_weights`."""
    return bool(getattr(trainer.accelerator, "is_fsdp2", False)) or any(
        hasattr(weight, "to_local") or hasattr(weight, "ds_id") for weight in trainer.model.parameters()
    )


def _checksums(trainer: Any) -> list[int]:
    """A checksum of each trained weight tensor: its elements reinterpreted as integers and summed over all parts."""
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    trained = [_local(weight) for weight in trainer.model.parameters() if weight.requires_grad]
    sums = [weight.contiguous().view(integers[weight.element_size()]).sum(dtype=torch.int64) for weight in trained]
    if sums and _is_divided(trainer):
        sums = list(trainer.accelerator.reduce(torch.stack(sums), "sum"))
    return [int(one) for one in sums]


def _check_trained(trainer: Any, before: list[int], label: str, hint: str) -> None:
    """Raise TrainingError if no step was made, no weight changed, or a weight is not finite."""
    steps = trainer.state.global_step
    if steps == 0:
        raise TrainingError(f"{label}: no step was made, so there is no model to save")
    norms = [row["grad_norm"] for row in trainer.state.log_history if "grad_norm" in row]
    if _checksums(trainer) == before or (norms and not any(norms)):
        raise TrainingError(f"{label}: no weight changed in {steps} steps, so no model is saved: {hint}")
    trained = (_local(weight) for weight in trainer.model.parameters() if weight.requires_grad)
    finite = torch.tensor([all(bool(torch.isfinite(weight).all()) for weight in trained)])
    if not bool(trainer.accelerator.gather(finite.to(trainer.accelerator.device)).all()):
        raise TrainingError(
            f"{label}: the weights are NaN or infinite after {steps} steps: expected a lower learning rate"
        )


def save(trainer: Any, tokenizer: Any, out: Path, settings: SectionSettings) -> None:
    """Write the model (adapters merged) in float32 to `out` atomically, and delete the checkpoints.

    bfloat16 would round away most updates of small learning rates or adapters. In a group of processes the main one
    writes, and the others wait; weights that are divided over them are gathered. Raises StorageError if writing fails.
    """
    state: Any = None
    if settings.lora_rank is not None and _is_divided(trainer):
        _gather_weights(trainer)
    elif _is_divided(trainer):  # collective: every process takes part
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        _write(trainer, tokenizer, out, settings, state)
    trainer.accelerator.wait_for_everyone()


def _gather_weights(trainer: Any) -> None:
    """Replace the divided weights (FSDP2) of the main process's model by whole ones on the CPU, to merge adapters.

    Collective. The model cannot be trained afterwards.
    """
    is_main = trainer.is_world_process_zero()
    for module in trainer.accelerator.unwrap_model(trainer.model).modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if hasattr(weight, "full_tensor"):
                whole = weight.detach().full_tensor()
                if is_main:
                    module._parameters[name] = torch.nn.Parameter(whole.float().cpu(), requires_grad=False)


def _write(trainer: Any, tokenizer: Any, out: Path, settings: SectionSettings, state: Any) -> None:
    """Write the model; `state`: its gathered weights, None: it has them."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    for tied, source in getattr(model, "all_tied_weights_keys", {}).items() if state else ():
        if source in state:  # a tensor of its own in the gathered weights
            state.pop(tied, None)
    if settings.lora_rank is not None:
        if not _is_divided(trainer):  # else `_gather_weights` has done so
            model = model.cpu().float()  # float32 weights may not fit into GPU memory
        model = model.merge_and_unload()
    temporary = out.with_name(out.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with _writing(out):
            model.save_pretrained(temporary, state_dict=state)
            tokenizer.save_pretrained(temporary)
    except StorageError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
    discard_checkpoints(out)


def _last_checkpoint(folder: Path, processes: int) -> Path | None:
    """The newest complete checkpoint. Later, incomplete ones (after a kill or a full disk) are removed."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_step_of, reverse=True):
        try:
            json.loads((checkpoint / "trainer_state.json").read_bytes())  # written last by the trainer
            # Except for the states of random numbers of the other processes, which do not wait for each other.
            if not all(zipfile.is_zipfile(checkpoint / f"rng_state_{one}.pth") for one in range(1, processes)):
                raise FileNotFoundError
        except (OSError, ValueError):
            shutil.rmtree(checkpoint)
        else:
            return checkpoint
    return None


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Convert the write errors of the different libraries to StorageError; other exceptions pass through."""
    try:
        yield
    except StorageError:
        raise
    except Exception as problem:
        text = str(problem)
        if isinstance(problem, OSError):
            failed = problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
            reason = problem.strerror
        else:
            # Messages of safetensors (Rust's format of an errno) and torch.save.
            failed = any(words in text for words in ("(os error ", "PytorchStreamWriter", "inline_container"))
            reason = text.splitlines()[0] if "(os error " in text else "the disk may be full"
        if not failed:
            raise
        raise StorageError(f"cannot write {out}: {reason}") from problem


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Disable the progress bars of `datasets` and log messages below ERROR of transformers and TRL.

    Of the Python warnings only `SUPPRESSED_WARNINGS` are hidden.
    """
    import datasets
    import transformers

    verbosity, level = transformers.utils.logging.get_verbosity(), logging.getLogger("trl").level
    bars = not datasets.are_progress_bars_disabled()
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("trl").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with quiet_loading(), warnings.catch_warnings():
            for message in SUPPRESSED_WARNINGS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
        logging.getLogger("trl").setLevel(level)
        if bars:
            datasets.enable_progress_bars()


def _steps(trainer: Any, label: str) -> int:
    """The total number of optimizer steps. Raises InputError if an epoch has no batch."""
    if trainer.args.max_steps > 0:
        return int(trainer.args.max_steps)
    batches = len(trainer.get_train_dataloader())
    if not batches:
        rows = len(trainer.train_dataset)
        raise InputError(
            f"{label}: the {rows} rows that are left make no batch: expected more, or a smaller batch_size"
        )
    per_epoch = max(1, -(-batches // trainer.args.gradient_accumulation_steps))
    return int(-(-per_epoch * trainer.args.num_train_epochs // 1))
