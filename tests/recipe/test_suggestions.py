"""An unknown key is answered with the key that was meant: misspelt, or written in the wrong section."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rewright.core.errors import InputError
from rewright.engines.embedded import HFSettings
from rewright.engines.served import OpenAISettings
from rewright.engines.settings import ModelSettings
from rewright.recipe.loader import load_recipe
from rewright.recipe.schema import Recipe
from support import in_process


def keys_of(kind: Any, prefix: str = "") -> list[str]:
    """The keys of the schema, found here by its own walk over the types."""
    found: list[str] = []
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (tuple, dict):
        return keys_of(
            arguments[-1 if origin is dict else 0], f"{prefix.rstrip('.')}{'.NAME.' if origin is dict else '[].'}"
        )
    kinds = [kind, *arguments]
    structs = [one for one in kinds if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    if ModelSettings in kinds:
        structs = [HFSettings, OpenAISettings]
    for struct in structs:
        for name, below in typing.get_type_hints(struct).items():
            if name in struct.__struct_fields__ and f"{prefix}{name}" not in found:
                found.append(f"{prefix}{name}")
                found += [one for one in keys_of(below, f"{prefix}{name}.") if one not in found]
    return found


KEYS = keys_of(Recipe)
LONG = [key for key in KEYS if len(key.rpartition(".")[2]) >= 4 and "[]" not in key and ".NAME." not in key]


def complaint(key: str) -> str:
    with pytest.raises(InputError) as caught:
        load_recipe(None, [f"{key}=1"])
    said = str(caught.value)
    assert "\n" not in said
    return said


def suggested(key: str) -> list[str]:
    """The keys that the complaint names, in its order."""
    said = complaint(key)
    assert f"unknown key {key.split('=', maxsplit=1)[0]}" in said, said
    return said.partition("did you mean ")[2].rstrip("?").replace(" or ", ", ").split(", ")


def misspellings(key: str) -> list[str]:
    """The key with a letter left out, doubled, replaced and swapped, and in the spellings of other languages."""
    section, _, name = key.rpartition(".")
    middle = len(name) // 2
    head, tail = name[:middle], name[middle:]
    words = [
        head[:-1] + tail,
        head + head[-1] + tail,
        head + "x" + tail[1:],
        head[:-1] + tail[0] + head[-1] + tail[1:],
        name.replace("_", "-").upper(),
    ]
    found = [f"{section}.{word}".lstrip(".") for word in dict.fromkeys(words)]
    return [one for one in found if one not in KEYS]


@pytest.mark.parametrize("key", LONG)
def test_a_misspelt_key_is_answered_with_its_path(key: str) -> None:
    for written in misspellings(key):
        assert key in suggested(written)[:2], written


@pytest.mark.parametrize("key", KEYS)
def test_a_key_in_another_section_is_answered_with_its_path(key: str) -> None:
    name = key.rpartition(".")[2]
    for section in ("", "synth.", "rl.", "rl.credit."):
        written = f"{section}{name}"
        if written not in KEYS:
            same = {one for one in KEYS if one.rpartition(".")[2] == name}
            assert len(same) > 8 or same <= set(suggested(written)), written
            assert set(suggested(written)) & same


def test_the_nearest_section_comes_first() -> None:
    assert suggested("rl.estimator") == ["rl.credit.estimator"]
    assert suggested("eval.count")[:3] == ["eval.tasks.count", "tasks.count", "rl.tasks.count"]
    assert suggested("credit") == ["rl.credit"]


@pytest.mark.parametrize("key", ["xyz", "q", "synth.zzzz", "rl.credit.colour_of_the_moon", "model.wheels"])
def test_nothing_is_suggested_for_what_is_like_nothing(key: str) -> None:
    said = complaint(key)
    assert "did you mean" not in said
    assert "expected one of " in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tasks: {format: twon}\n", ":1: tasks.format: unknown task format 'twon': did you mean 'town'?"),
        ("tasks: {format: twon, count: 3}\n", ":1: tasks.format: unknown task format 'twon': did you mean 'town'?"),
        ("tasks: {fromat: rewright, path: x, count: 3}\n", ":1: unknown key tasks.fromat: did you mean tasks.format?"),
        ("rl: {estimator: grpo}\n", ":1: unknown key rl.estimator: did you mean rl.credit.estimator?"),
        (
            "model:\n  engin: openai\n  base_url: http://h/v1\n",
            ":2: unknown key model.engin: did you mean model.engine?",
        ),
        (
            "quality:\n  dimensions:\n  - {name: a, functoin: length}\n",
            ":3: unknown key quality.dimensions[0].functoin: did you mean quality.dimensions[0].function?",
        ),
        ("prices:\n  mine: {inputs: 1}\n", ":2: unknown key prices.mine.inputs: did you mean prices.mine.input?"),
    ],
)
def test_the_key_that_was_meant_is_named_and_not_its_consequence(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    in_process.rewright(tmp_path, "run", "r.yaml").refused(f"r.yaml{said}")
