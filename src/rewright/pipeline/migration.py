"""Read and update run directories of older formats.

environment.json holds the format (`rewright.pipeline.environment.FORMAT`); format 1 had no number. An older run is
converted when it is read. Its files are rewritten when it is first opened for writing, environment.json last, so that
an interrupted update is repeated.

Format 2: modules in stored import paths have moved, a model section holds only the keys of its engine, and
`rl.credit.lonely_turn` was renamed to `rl.credit.singleton_turn`. Changed recipe sections would change the ids of
trajectories, so the earlier digests are stored and existing trajectories are not generated again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from rewright.core.errors import InputError
from rewright.core.records import Task
from rewright.core.registry import find, known
from rewright.core.storage import RecordFile, read_bounded, write_atomically
from rewright.engines.settings import DEFAULT_ENGINE, ModelSettings
from rewright.pipeline.environment import FORMAT
from rewright.recipe.loader import load_recipe, recipe_hash
from rewright.recipe.renamed import moved_path, rename
from rewright.recipe.schema import Recipe

__all__ = [
    "check_format",
    "is_older",
    "migrate",
    "stored_environment",
    "stored_recipe",
    "upgrade_task",
    "written_recipe",
]

MODEL_SECTIONS: Final = (("model",), ("repair", "model"))


def stored_environment(folder: Path) -> dict[str, Any]:
    """The content of environment.json; empty if it cannot be read."""
    try:
        content = msgspec.json.decode(read_bounded(folder / "environment.json"))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def check_format(folder: Path) -> int:
    """The format of a run directory. Raises InputError for an invalid or newer format."""
    number = stored_environment(folder).get("format", 1)
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise InputError(f"{folder}/environment.json: format is {number!r:.80}: expected a whole number from 1")
    if number > FORMAT:
        raise InputError(
            f"{folder} has the run format {number}, of a newer version of Rewright: expected format {FORMAT} or older "
            "(pip install --upgrade rewright)"
        )
    return number


def is_older(folder: Path) -> bool:
    """Whether the run directory has an older format. Raises InputError for a newer one."""
    return check_format(folder) < FORMAT


def stored_recipe(folder: Path, overrides: Iterable[str] = (), *, trusted: Sequence[str] | None = ()) -> Recipe:
    """Load the recipe of a run directory of any format, with overrides. Raises InputError as `load_recipe` does.

    `trusted`: the code that loading may import; None: any.
    """
    upgrade = _upgrade_recipe if is_older(folder) else None
    return load_recipe(folder / "recipe.yaml", list(overrides), stored=True, trusted=trusted, upgrade=upgrade)


def written_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Load a recipe given by path: a user's file, or the recipe of a run, which may have an older format."""
    is_user_file = path.name != "recipe.yaml" or not stored_environment(path.parent)
    upgrade = None if is_user_file or not is_older(path.parent) else _upgrade_recipe
    return load_recipe(path, list(overrides), upgrade=upgrade)


def upgrade_task(task: Task) -> Task:
    """Update the import paths of a stored task."""
    if not any(tool.target is not None and tool.target != moved_path(tool.target) for tool in task.tools):
        return task
    tools = [
        tool if tool.target is None else msgspec.structs.replace(tool, target=moved_path(tool.target))
        for tool in task.tools
    ]
    return msgspec.structs.replace(task, tools=tuple(tools))


def migrate(folder: Path, tasks: Iterable[RecordFile[Task]], id_sections: Iterable[Iterable[str]]) -> None:
    """Rewrite an older run directory in the current format. The caller has locked it.

    `tasks` are its task files, `id_sections` the recipe sections that the ids of each stage depend on. Raises
    InputError, before anything is written, for a recipe that cannot be read.
    """
    environment = stored_environment(folder)
    if not environment or not is_older(folder):
        return
    path = folder / "recipe.yaml"
    before = read_bounded(path)
    recipe = stored_recipe(folder)
    text = yaml.safe_dump(msgspec.to_builtins(recipe), sort_keys=False, allow_unicode=True).encode()
    earlier = environment.get("earlier_ids")  # {}: none differ; the recipe may have been rewritten since
    if earlier is None:
        earlier = _earlier_ids(yaml.safe_load(before), recipe, id_sections)
    # Stored before the recipe is rewritten, because it cannot be computed from the new one.
    _write_environment(folder, {**environment, "earlier_ids": earlier})
    for copy in [*folder.glob("redo/*/recipe.yaml"), path]:
        if copy.read_bytes() == before:
            write_atomically(copy, [text])
    for file in tasks:
        if file.path.exists():
            file.rewrite(list(file))
    _write_environment(folder, {"format": FORMAT, **environment, "earlier_ids": earlier})


def _write_environment(folder: Path, value: dict[str, Any]) -> None:
    write_atomically(folder / "environment.json", [msgspec.json.format(msgspec.json.encode(value), indent=1), b"\n"])


def _earlier_ids(data: Any, recipe: Recipe, id_sections: Iterable[Iterable[str]]) -> dict[str, str]:
    """Map current id digests to those of the stored trajectories with the same settings."""
    digests = {}
    for names in (tuple(sections) for sections in id_sections):
        if isinstance(data, dict) and data.keys() >= {*names}:
            encoded = msgspec.json.encode({name: data[name] for name in names}, order="sorted")
            earlier = hashlib.blake2b(encoded, digest_size=4).hexdigest()
            if (current := recipe_hash(recipe, names)) != earlier:
                digests[current] = earlier
    return digests


def _upgrade_recipe(data: dict[str, Any]) -> dict[str, Any]:
    """Update the keys and import paths of a stored recipe of format 1, in place."""
    rename(data)
    engines = known("engine")
    for keys in MODEL_SECTIONS:
        section = _section(data, keys)
        # An engine of another package is code: it is imported only after its user has allowed it.
        if section is not None and section.get("engine", DEFAULT_ENGINE) in engines:
            accepted = ModelSettings.kind(section).__struct_fields__
            all_keys = {key for name in engines for key in find("engine", name).__struct_fields__}
            for key in all_keys.difference(accepted) & section.keys():
                del section[key]
    return data


def _section(data: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any] | None:
    section: Any = data
    for key in keys:
        section = section.get(key) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else None
