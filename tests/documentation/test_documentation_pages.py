"""The pages of docs/: they name every key, stage and metric that exists, and no other verb; their examples work."""

import contextlib
import io
import re
import typing
from pathlib import Path

import msgspec
import pytest
import typer
import yaml

from rewright.cli.main import app
from rewright.core.registry import find, known
from rewright.recipe.loader import load_recipe
from rewright.recipe.schema import Recipe
from rewright.recipe.stages import ALL_STAGES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
PIPELINE, RL = ((ROOT / "docs" / name).read_text("utf-8") for name in ("pipeline.md", "rl.md"))
SUMMARISED = {"eval.tasks"}
IN_WORDS = {"stages": "all eleven", "quality.dimensions": "six", "quality.uncertain_words": "nine"}


def engine_keys():
    """(dotted key, default) of the `model` section, whichever engine it names."""
    found = {}
    for name in known("engine"):
        settings = find("engine", name)()
        found |= {f"model.{field}": getattr(settings, field) for field in settings.__struct_fields__}
    return found | dict(keys(Recipe().model, "model."))


def keys(section, prefix=""):
    """(dotted key, default) of everything that a recipe may hold."""
    for name in section.__struct_fields__:
        value, key = getattr(section, name), prefix + name
        if isinstance(value, msgspec.Struct) and key not in SUMMARISED:
            yield from keys(value, f"{key}.")
        else:
            yield key, value


def rows(text):
    return {row[0]: row[1:] for row in re.findall(r"^\| `([\w.]+)` \| (.*?) \| (.*?) \|$", text, re.MULTILINE)}


def plain(value):
    """A default as YAML would read it: lists for tuples."""
    builtin = msgspec.to_builtins(value)
    return list(builtin) if isinstance(builtin, tuple) else builtin


def test_every_key_of_a_recipe_stands_on_the_page_with_its_default_and_meaning():
    table = rows(PIPELINE.split("## Every key")[1])
    existing = dict(keys(Recipe())) | engine_keys()
    assert set(table) == set(existing)
    for key, default in existing.items():
        shown, meaning = table[key]
        assert meaning, key
        if key in IN_WORDS:
            assert shown == IN_WORDS[key], key
        elif key in SUMMARISED:
            named = yaml.safe_load("{" + shown.replace("`", "") + "}")
            standard = plain(type(default)())
            assert {name: value for name, value in plain(default).items() if value != standard[name]} == named
        else:
            text = shown.strip("`")
            read = float(text) if isinstance(default, float) else yaml.safe_load(text)
            assert read == plain(default), key
    assert (len(ALL_STAGES), len(Recipe().quality.dimensions), len(Recipe().quality.uncertain_words)) == (11, 6, 9)


def test_every_stage_stands_on_the_page():
    assert set(ALL_STAGES) <= set(re.findall(r"^\| `(\w+)` \|", PIPELINE, re.MULTILINE))


def test_recipes_on_the_page_are_valid(tmp_path):
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", PIPELINE, re.DOTALL)):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        assert load_recipe(path).tasks.format == "ftrl"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_verbs_exist(page):
    text = page.read_text("utf-8")
    verbs = typing.cast("typing.Any", typer.main.get_command(app)).commands
    for verb in re.findall(r"(?:^|`)rewright ([a-z]+(?:-[a-z]+)*)\b", text, re.MULTILINE):
        assert verb in verbs, verb


def test_the_index_links_every_page():
    linked = re.findall(r"\]\(([\w./-]+\.md)\)", (DOCS / "index.md").read_text("utf-8"))
    assert sorted(linked) == sorted(str(page.relative_to(DOCS)) for page in PAGES if page != DOCS / "index.md")


def test_every_metric_of_ours_is_explained():
    training = sorted((ROOT / "src" / "rewright" / "training").rglob("*.py"))
    source = "\n".join(path.read_text("utf-8") for path in training)
    ours = set(re.findall(r"\"(rewright/\w+)\"", source))
    explained = set(re.findall(r"`([\w/]+)`", RL.split("## Logged metrics")[1].split("The other stages")[0]))
    assert ours and ours <= explained


@pytest.mark.parametrize("source", re.findall(r"```python\n(.*?)```", RL, re.DOTALL))
def test_examples_print_what_the_page_says(source):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, "docs/rl.md", "exec"), {})
    assert printed.getvalue().splitlines() == [
        line.removeprefix("# ") for line in source.splitlines() if line.startswith("# ")
    ]
