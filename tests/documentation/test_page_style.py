"""The pages for users: lines of at most 110 characters; every path, name and heading that they refer to exists."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
PACKAGE = ROOT / "src" / "rewright"
README = ROOT / "README.md"
ALL_PAGES = [*PAGES, README, ROOT / "CONTRIBUTING.md"]
MAX_WIDTH = 110
PLACEHOLDERS = {"mine", "old"}
"""Parts of paths and names that stand for something of the reader's."""
PATH = re.compile(r"(?<![\w./-])(?:benchmarks|examples|experiments|fuzz|recipes|scripts|src|tests)/[\w./-]*\w")
NAME = re.compile(r"(?<![\w./-])rewright((?:\.[A-Za-z_]\w*)+)")


def prose(text: str) -> Iterator[tuple[int, str]]:
    """(line number, line) outside of tables and code blocks."""
    code = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            code = not code
        elif not code and not line.startswith("|"):
            yield number, line


def defined(module: Path) -> set[str]:
    """The names that a module binds at its top level."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
    return names


def exists(parts: list[str]) -> bool:
    """Whether `rewright.` and these parts, joined by dots, name a module or something that a module defines."""
    folder = PACKAGE
    for position, part in enumerate(parts):
        if (folder / part / "__init__.py").is_file():
            folder /= part
        elif (folder / f"{part}.py").is_file():
            rest = parts[position + 1 :]
            return not rest or rest[0] in defined(folder / f"{part}.py")
        else:
            return part in defined(folder / "__init__.py")
    return True


def anchors(page: Path) -> set[str]:
    """The fragments under which the headings of a page are linked, as GitHub makes them."""
    headings = [line.lstrip("#").strip() for _, line in prose(page.read_text("utf-8")) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, README], ids=lambda page: page.name)
def test_lines_of_prose_fit_in_110_characters(page: Path) -> None:
    too_long = [number for number, line in prose(page.read_text("utf-8")) if len(line) > MAX_WIDTH]
    assert not too_long, f"{page.name}: lines {too_long} have more than {MAX_WIDTH} characters"


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    named = [path for path in PATH.findall(page.read_text("utf-8")) if PLACEHOLDERS.isdisjoint(path.split("/"))]
    assert [path for path in named if not any((root / path).exists() for root in (ROOT, PACKAGE, page.parent))] == []


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_the_modules_and_functions_that_a_page_names_exist(page: Path) -> None:
    named = [found.split(".")[1:] for found in NAME.findall(page.read_text("utf-8"))]
    assert [parts for parts in named if PLACEHOLDERS.isdisjoint(parts) and not exists(parts)] == []


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_links_lead_to_a_file_and_a_heading_of_it(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s:]*)(?:#([^)\s]+))?\)", page.read_text("utf-8"))
    for target, fragment in links:
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not fragment or fragment in anchors(file), f"{target}#{fragment}"


@pytest.mark.parametrize("name", ["plugins", "quality", "training.rl", "tools.sandbox", "judging.process"])
def test_a_module_of_an_earlier_layout_is_not_taken_for_one_that_exists(name: str) -> None:
    assert not exists(name.split("."))
