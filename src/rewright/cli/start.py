"""The commands init and schema, with which a project starts."""

from __future__ import annotations

import difflib
import json
import shlex
from pathlib import Path
from typing import Annotated, Final

import typer

from rewright.cli.program import command
from rewright.core.errors import InputError

__all__ = ["register"]

_ABOUT: Final = {
    "recipe.yaml": "what to run: model, tasks, stages, limits",
    "tasks.jsonl": "five questions, with gold calls and answers",
    "my_tools.py": "three Python functions, the tools",
}

_KINDS: Final = ("task", "recipe", "trajectory")


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.command()(init)
    app.command()(schema)


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
    steps = (("validate", "tasks.jsonl", "--trusted", "my_tools"), ("run", "recipe.yaml"), ("view", f"runs/{RUN_NAME}"))
    for words in steps:
        print(f"  {command(*words, folder=folder)}")


def schema(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="task|recipe|trajectory",
            help="What the schema describes: one of these three.",
            autocompletion=lambda: list(_KINDS),
        ),
    ],
) -> None:
    """Print the JSON Schema (draft 2020-12) of a task, a recipe or a trajectory, for editors and other programs."""
    if kind not in _KINDS:
        near = difflib.get_close_matches(kind.lower(), _KINDS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"no schema {kind!r}: {hint}expected one of {', '.join(_KINDS)}")
    from rewright.core.json_schema import record_schema
    from rewright.core.records import Trajectory
    from rewright.recipe.json_schema import recipe_schema
    from rewright.tasks.json_schema import task_schema

    if kind == "task":
        made = task_schema()
    elif kind == "recipe":
        made = recipe_schema()
    else:
        made = record_schema(Trajectory)
    print(json.dumps(made, indent=2))
