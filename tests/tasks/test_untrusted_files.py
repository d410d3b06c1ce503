"""Files from elsewhere are data: nothing in this package unpickles, evaluates or runs what they hold."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

import rewright
from rewright.core.errors import InputError
from rewright.engines.embedded import HFSettings
from rewright.recipe.loader import load_recipe

SOURCE = Path(rewright.__file__).parent
RUNS_UNTRUSTED_CODE = SOURCE / "sandbox" / "worker"
"""What runs inside the sandbox's child: executing text is its purpose."""
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
OWN_PROCESSES = ("training/launch.py", "pipeline/processes/jobs.py", "workers/ordered.py", "workers/shards.py")
"""They pickle between processes of one run, over pipes, sockets and a Ray cluster of the user's. No file is read."""
UNSAFE_CALLS = {"eval", "exec", "__import__"}
UNSAFE_METHODS = {("np", "load"), ("numpy", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load"), ("os", "system")}


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    for path in sorted(SOURCE.rglob("*.py")):
        if RUNS_UNTRUSTED_CODE not in path.parents:
            yield from ((path, node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def words(call: ast.Call) -> dict[str | None, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords}


def test_nothing_in_the_trainers_process_unpickles_or_evaluates() -> None:
    found = []
    for path, node in nodes():
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").partition(".")[0]}
        else:
            names = set()
        if names & UNSAFE_MODULES and not str(path).endswith(OWN_PROCESSES):
            found.append(f"{path}:{node.lineno}: imports {names}")  # type: ignore[attr-defined]
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name) and function.id in UNSAFE_CALLS:
            found.append(f"{path}:{node.lineno}: {function.id}()")
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            called = (function.value.id, function.attr)
            refused = words(node).get("allow_pickle")
            without_pickles = isinstance(refused, ast.Constant) and refused.value is False
            if called in UNSAFE_METHODS and not ("mmap_mode" in words(node) or without_pickles):
                found.append(f"{path}:{node.lineno}: {'.'.join(called)}()")
            safe = words(node).get("weights_only")
            if called == ("torch", "load") and not (isinstance(safe, ast.Constant) and safe.value is True):
                found.append(f"{path}:{node.lineno}: torch.load without weights_only=True")
    assert found == []


def test_a_models_own_code_runs_only_where_the_recipe_says_so() -> None:
    assert HFSettings().trust_remote_code is False
    given = [
        (path, value)
        for path, node in nodes()
        if isinstance(node, ast.Call) and (value := words(node).get("trust_remote_code")) is not None
    ]
    assert given
    for path, value in given:
        assert isinstance(value, ast.Attribute), f"{path}:{value.lineno}: trust_remote_code must come from the recipe"


def test_a_recipe_makes_no_objects(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: !!python/object/apply:pathlib.Path.touch [{marker}]\n")
    with pytest.raises(InputError, match=r"recipe\.yaml:1: not valid YAML"):
        load_recipe(recipe)
    assert not marker.exists()


class _Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_pickle_in_the_place_of_weights_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    pytest.importorskip("torch")
    from rewright.engines.loading import load_model
    from rewright.engines.pico import pico_path

    model, marker = tmp_path / "model", tmp_path / "marker"
    model.mkdir()
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (model / file).write_bytes((pico_path("pico") / file).read_bytes())
    (model / name).write_bytes(pickle.dumps(_Payload(marker)))
    with pytest.raises(InputError, match="cannot load it") as caught:
        load_model(HFSettings(path=str(model)))
    assert "\n" not in str(caught.value)
    assert not marker.exists()
