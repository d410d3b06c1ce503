"""What surrounds the code agrees with it: links, versions, names of tools and kinds."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import rewright
from rewright.core.registry import KINDS

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/releases/*.md"), *ROOT.glob("examples/**/*.md")]
FORMS = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8"))
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


def test_this_version_has_its_notes_and_its_citation():
    assert (ROOT / "docs" / "releases" / f"{rewright.__version__}.md").exists()
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == rewright.__version__


def test_a_part_of_every_kind_can_be_asked_for():
    (form,) = [yaml.safe_load(path.read_text("utf-8")) for path in FORMS if path.name == "part.yml"]
    (kinds,) = [part["attributes"]["options"] for part in form["body"] if part.get("id") == "kind"]
    assert sorted(kinds) == sorted(KINDS)


def test_hooks_run_the_tools_that_make_lint_and_types_run():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0]["hooks"]
    called = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in hooks}
    makefile = (ROOT / "Makefile").read_text("utf-8")
    recipes = re.findall(r"^(?:lint|types): setup\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert called == set(re.findall(r"\$\(BIN\)/([\w-]+)", "".join(recipes)))


@pytest.mark.parametrize("command", re.findall(r"`make ([\w-]+)", (ROOT / "CONTRIBUTING.md").read_text("utf-8")))
def test_commands_of_the_contributing_page_are_targets(command):
    assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
NEEDED = [Requirement(line) for line in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["train"])]


@pytest.mark.parametrize("needed", NEEDED, ids=lambda needed: needed.name)
def test_what_an_installation_needs_is_bounded_on_both_sides_and_the_tested_versions_are_within(needed):
    operators = {bound.operator for bound in needed.specifier}
    assert operators == {">=", "<"}
    for name in ("constraints.txt", "constraints-lowest.txt"):
        pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text("utf-8"), re.MULTILINE))
        versions = {canonicalize_name(key): version for key, version in pinned.items()}
        found = versions.get(canonicalize_name(needed.name))
        if found is None:
            assert (needed.name, name) == ("torch", "constraints-lowest.txt"), "its build differs by machine"
        else:
            assert needed.specifier.contains(found), f"{name}: {needed.name}=={found}"


SCALE = [Requirement(line) for extra in ("ray", "verl") for line in PROJECT["optional-dependencies"][extra]]


@pytest.mark.parametrize("needed", SCALE, ids=lambda needed: needed.name)
def test_one_environment_has_what_verl_and_training_need(needed):
    pins = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "tests/scale/verl.txt").read_text("utf-8"), re.MULTILINE)
    versions = {canonicalize_name(name): version for name, version in pins}
    found = versions.get(canonicalize_name(needed.name))
    if found is None:
        assert needed.name == "torch", "its build differs by machine"
    else:
        assert needed.specifier.contains(found)
        both = [one for one in NEEDED if one.name == needed.name]
        assert all(one.specifier.contains(found) for one in both)


def test_torch_is_not_needed_without_the_extra_train():
    assert not {Requirement(line).name for line in PROJECT["dependencies"]} & {"torch", "transformers", "trl", "peft"}
