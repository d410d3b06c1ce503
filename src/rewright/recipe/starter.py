"""The files of a new project (`rewright init`): a recipe, five tasks, and three tools that run at once."""

from __future__ import annotations

import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import yaml

from rewright.core.errors import InputError, StorageError
from rewright.net.urls import normalize_base_url

__all__ = ["RUN_NAME", "STARTER_FILES", "write_starter"]

STARTER_FILES: Final = ("recipe.yaml", "tasks.jsonl", "my_tools.py")
RUN_NAME: Final = "first"
"""`name` of the written recipe."""
_SERVED: Final = re.compile(r"(?P<address>https?://[^/]+(?:/[^/]+)*?/(?:v1beta/openai|v\d+))/(?P<name>.+)", re.DOTALL)


def write_starter(folder: Path, model: str = "pico") -> list[Path]:
    """Write the files of a new project into `folder`, which is made if it does not exist. Returns their paths.

    `model`: `pico`, a local folder, a Hugging Face id, or a served model as `ADDRESS/v1/NAME`. A local folder is
    written with its whole path, because the recipe is run elsewhere. Raises InputError if one of the files exists
    already or the model is not understood, before anything is written.
    """
    contents = {name: _packaged(name) for name in STARTER_FILES}
    if model != "pico":
        section = yaml.safe_dump(_model_section(model), default_flow_style=True, width=float("inf"), sort_keys=False)
        contents["recipe.yaml"] = _packaged("recipe_own_model.yaml").replace("MODEL", section.strip())
    for name in STARTER_FILES:
        if os.path.lexists(folder / name):
            raise InputError(f"{folder / name} is there already: expected a folder without it; nothing was written")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            with (folder / name).open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
    except OSError as problem:
        raise StorageError(f"{problem.filename or folder}: cannot be written: {problem.strerror}") from problem
    return [folder / name for name in STARTER_FILES]


def _packaged(name: str) -> str:
    return (files("rewright.recipe") / "starter_files" / name).read_text("utf-8")


def _model_section(model: str) -> dict[str, Any]:
    """The `model:` section for `--model`. Raises InputError for an address without a name."""
    if "://" in model:
        served = _SERVED.fullmatch(model)
        if served is None:
            raise InputError(
                f"--model {model!r}: expected the address up to /v1 and then the name of the model, as "
                "http://localhost:8000/v1/Qwen/Qwen3-8B"
            )
        try:
            address = normalize_base_url(served["address"])
        except InputError as problem:
            raise InputError(f"--model: {problem}") from None
        return {"path": served["name"], "engine": "openai", "base_url": address}
    if model.startswith("pico-"):
        raise InputError(f"--model {model!r}: expected pico, or a model that writes the hermes dialect")
    local = Path(model).expanduser()
    return {"path": str(local.resolve()) if local.is_dir() else model}
