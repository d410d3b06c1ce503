"""The commands init and schema, with which a project starts."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Final

import typer

__all__ = ["register"]

_ABOUT: Final = {
    "recipe.yaml": "what to run: model, tasks, stages, limits",
    "tasks.jsonl": "five questions, with gold calls and answers",
    "my_tools.py": "three Python functions, the tools",
}


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.command()(init)


def init(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; made if it does not exist.")] = Path(),
    *,
    model: Annotated[
        str,
        typer.Option(help="pico, a folder, a Hugging Face id, or a served model: http://localhost:8000/v1/NAME."),
    ] = "pico",
) -> None:
    """Write a recipe, a task file and a tools module to start from, and print the commands that run them."""
    from rewright.recipe.starter import RUN_NAME, write_starter

    for path in write_starter(folder, model):
        print(f"written: {path}  ({_ABOUT[path.name]})")
    print("\nnext:")
    if folder.resolve() != Path.cwd():
        name = str(folder)
        print(f"  cd {shlex.quote(f'./{name}' if name.startswith('-') else name)}")
    print("  rewright validate tasks.jsonl --trusted my_tools")
    print("  rewright run recipe.yaml")
    print(f"  rewright view runs/{RUN_NAME}")
