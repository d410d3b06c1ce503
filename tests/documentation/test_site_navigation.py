"""The documentation site: every page has its place, the goals are near the first page, nothing comes from elsewhere."""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
GOALS = (
    "credit_logs", "trl", "verl", "repair", "own_tools", "reward_models", "evaluate", "gpus",
)  # fmt: skip


def entries(nav: Any) -> Iterator[str]:
    """The pages of the navigation, with those that a `*` stands for."""
    for one in nav if isinstance(nav, list) else [nav]:
        if isinstance(one, dict):
            for part in one.values():
                yield from entries(part)
        elif "*" in one:
            yield from (path.relative_to(DOCS).as_posix() for path in sorted(DOCS.glob(one)))
        else:
            yield one


def linked(page: Path) -> set[Path]:
    """The pages that a page links."""
    targets = re.findall(r"\]\(([^)#\s:]+\.md)(?:#[^)]*)?\)", page.read_text("utf-8"))
    return {Path(os.path.normpath(page.parent / target)) for target in targets}


def test_every_page_stands_in_the_navigation_once() -> None:
    found = list(entries(SITE["nav"]))
    assert sorted(one for one in found if not one.startswith("repository/")) == sorted(
        path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")
    )
    assert all((ROOT / one.removeprefix("repository/")).exists() for one in found if one.startswith("repository/"))


def test_there_are_eight_goals_each_with_its_entry_in_the_navigation() -> None:
    (how_to,) = [part["How-to"] for part in SITE["nav"] if "How-to" in part]
    assert how_to == [f"howto/{goal}.md" for goal in GOALS]


@pytest.mark.parametrize("first", ["README.md", "docs/index.md"])
def test_each_goal_is_within_two_clicks_of_the_first_page(first: str) -> None:
    one = linked(ROOT / first)
    two = one.union(*(linked(page) for page in one if page.exists()))
    assert {DOCS / "howto" / f"{goal}.md" for goal in GOALS} <= one <= two


@pytest.mark.parametrize("goal", GOALS)
def test_a_goal_begins_with_an_example_and_leads_on(goal: str) -> None:
    page = DOCS / "howto" / f"{goal}.md"
    text = page.read_text("utf-8")
    assert 40 <= len(text.splitlines()) <= 120
    assert "\n## What you see\n" in text and "\n## Next\n" in text
    assert text.index("```") < text.index("\n## What you see\n")
    assert len(linked(page)) >= 2


@pytest.mark.parametrize("page", sorted(DOCS.glob("*/*.md")), ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_an_example_comes_before_the_first_table(page: Path) -> None:
    text = page.read_text("utf-8")
    table = re.search(r"^\|", text, re.MULTILINE)
    if page.parent.name != "releases" and table is not None:
        assert "```" in text[: table.start()]


def test_every_figure_of_the_results_stands_on_the_page_that_describes_it() -> None:
    rows = re.findall(r"^\|.*\]\(\S+\.md.*\|$", (DOCS / "results.md").read_text("utf-8"), re.MULTILINE)
    checked = 0
    for row in rows:
        _what, figures, *_ = [cell.strip() for cell in row.strip("|").split("|")]
        pages = re.findall(r"\]\(([^)#]+\.md)", row)
        text = " ".join((DOCS / page).read_text("utf-8") for page in pages)
        for number in re.findall(r"(?<![\w.])\d+(?:[.,]\d+)+(?!\w)|\d+(?=%)", figures):
            share = f"{float(number.replace(',', '')) / 100:.3f}"
            assert number in text or share in text, (number, pages)
            checked += 1
    assert checked > 30


def test_a_broken_link_or_anchor_is_an_error_and_no_other_host_is_asked() -> None:
    assert SITE["strict"] is True
    assert SITE["validation"] == dict.fromkeys(
        ("omitted_files", "absolute_links", "unrecognized_links", "anchors"), "warn"
    )
    assert SITE["theme"]["font"] is False
    assert "analytics" not in SITE["extra"]
    styles = [(DOCS / name).read_text("utf-8") for name in SITE["extra_css"]]
    assert not any("url(" in style or "@import" in style for style in styles)
    assert "extra_javascript" not in SITE


def test_the_pages_of_the_command_line_are_what_the_program_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import command_line_pages
    import typer

    parameter = typer.main.get_command(command_line_pages.app).params[0]
    if not hasattr(parameter, "type_descriptor"):
        pytest.skip("an older Typer declares types in another way")
    for name, text in command_line_pages.pages().items():
        assert (DOCS / "reference" / "cli" / name).read_text("utf-8") == text, "run `make reference`"


def test_the_site_is_built_and_the_viewer_compared_where_the_tests_run() -> None:
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    assert ci.index("make test\n") < ci.index("make site\n")
    assert re.search(r"if command -v npm .*then\n +make check-viewer\nfi", ci)
