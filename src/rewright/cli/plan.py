"""The command plan: GPU memory and tokens of a recipe, without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from rewright.cli.offline import JsonOption
from rewright.cli.output import print_json
from rewright.core.errors import InputError
from rewright.pipeline.memory_plan import PARTS, Hardware, Plan, gpus_of, misfit, plan_stages
from rewright.pipeline.migration import written_recipe
from rewright.recipe.schema import Recipe

__all__ = ["GpuMemoryOption", "GpusOption", "hardware_of", "register"]

MAX_GPUS = 4096
GpusOption = Annotated[int | None, typer.Option("--gpus", help="Number of GPUs (default: those that the recipe uses).")]
GpuMemoryOption = Annotated[float | None, typer.Option("--gpu-memory", help="Memory of one GPU in GiB (default: 80).")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.command()(plan)


def plan(
    recipe: Annotated[Path, typer.Argument(help="Recipe file (YAML).")],
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value …")] = None,
    *,
    gpus: GpusOption = None,
    gpu_memory: GpuMemoryOption = None,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of a task's prompt, tool schemas included.")] = 1024,
    as_json: JsonOption = False,
) -> None:
    """Print what each stage of a recipe takes of every GPU, and its tokens per step. Needs no GPU and no weights."""
    settings = written_recipe(recipe, overrides or [])
    made = plan_stages(settings, hardware_of(settings, gpus, gpu_memory, prompt_tokens))
    if as_json:
        print_json({**msgspec.to_builtins(made), "fits": made.fits})
        return
    print(_table(made))


def hardware_of(recipe: Recipe, gpus: int | None, gpu_memory: float | None, prompt_tokens: int = 1024) -> Hardware:
    """The hardware of the options, by default with the GPUs that the recipe uses.

    Raises InputError for numbers that no machine has.
    """
    for name, value, most in (("--gpus", gpus, MAX_GPUS), ("--gpu-memory", gpu_memory, 10_000)):
        if value is not None and not 0 < value <= most:
            raise InputError(f"{name} is {value:g}: expected a number from 1 to {most}")
    if not 0 <= prompt_tokens <= 10**7:
        raise InputError(f"--prompt-tokens is {prompt_tokens}: expected a number from 0 to 10000000")
    return Hardware(gpus or gpus_of(recipe), gpu_memory or 80.0, prompt_tokens)


def _table(made: Plan) -> str:
    hardware = made.hardware
    gpus = f"{hardware.gpus} GPU{'s' if hardware.gpus > 1 else ''} of {hardware.memory:g} GiB"
    lines = [f"{made.model}: {made.parameters:,} parameters, on {gpus}", ""]
    names = [stage.stage for stage in made.stages]
    width = max([12, *map(len, names)])
    lines.append(f"{'GiB per GPU':<18}" + "".join(f"{name:>{width}}" for name in names))
    for part in PARTS:
        if any(part in stage.parts for stage in made.stages):
            cells = (f"{stage.parts[part]:.2f}" if part in stage.parts else "" for stage in made.stages)
            lines.append(f"{part:<18}" + "".join(f"{cell:>{width}}" for cell in cells))
    lines.append(f"{'total':<18}" + "".join(f"{stage.total:>{width}.2f}" for stage in made.stages))
    lines.append(f"{'fits':<18}" + "".join(f"{'yes' if stage.fits else 'no':>{width}}" for stage in made.stages))
    tokens = (f"{stage.tokens_per_step:,}" if stage.tokens_per_step else "" for stage in made.stages)
    lines += [f"{'tokens per step':<18}" + "".join(f"{cell:>{width}}" for cell in tokens), ""]
    lines += [misfit(stage, hardware) for stage in made.stages if not stage.fits]
    lines += [f"note: {note}" for note in made.notes]
    return "\n".join(line.rstrip() for line in lines)
