"""experiments/performance.py with tiny sizes, and the page and the results file that are committed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "performance.py"
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "experiments" / "results" / "performance.json"


def run(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=600)


def measured(tmp_path: Path, *arguments: str, **variables: str) -> tuple[dict[str, Any], str]:
    """The results file and the page that the script has written."""
    page = tmp_path / "page.md"
    head, _, rest = PAGE.read_text("utf-8").partition("<!-- measured: begin")
    marker, _, _ = rest.partition("\n")
    page.write_text(f"{head}<!-- measured: begin{marker}\n<!-- measured: end -->\nThe end.\n", "utf-8")
    done = run("--tiny", "--out", tmp_path / "found.json", "--page", page, *arguments, **variables)
    assert done.returncode == 0, done.stderr[-3000:]
    text = page.read_text("utf-8")
    assert text.startswith(head) and text.endswith("<!-- measured: end -->\nThe end.\n")
    return json.loads((tmp_path / "found.json").read_text("utf-8")), text


def test_tiny_sizes_write_rows_with_what_they_are_compared_with(tmp_path: Path) -> None:
    before = PAGE.read_bytes(), RESULTS.read_bytes()
    found, page = measured(tmp_path, "--only", "driver", "credit", "advantages", "sandbox", "stored")
    assert (PAGE.read_bytes(), RESULTS.read_bytes()) == before, "a tiny run leaves the real figures alone"
    rows = found["rows"]
    whats = [row["what"].split(":")[0].split(" ")[0] for row in rows]
    assert sorted(set(whats)) == ["advantages", "credit", "driver", "sandbox", "stored"]
    assert all(row["today"] > 0 for row in rows)
    assert all("limit" in row for row in rows if "on two cores" not in row["what"])
    assert page.count("\n| ") == 1 + len(rows) and "Tiny sizes" in page
    matched = next(row for row in rows if "100 calls" in row["what"])
    assert matched["limit"]["value"] < matched["today"] < matched["peer"]["value"]


def test_without_a_browser_the_row_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found, page = measured(tmp_path, "--only", "viewer", PATH=str(tmp_path / "empty"))
    assert [row.get("missing") for row in found["rows"]] == [None, "chromium or playwright is not installed"]
    assert "| not measured: chromium or playwright is not installed |" in page


def test_a_part_whose_time_is_up_leaves_a_row_and_exit_code_1(tmp_path: Path) -> None:
    done = run("--tiny", "--only", "credit", "--part-seconds", "0.01", "--out", tmp_path / "found.json")
    assert done.returncode == 1
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [(row["what"], row["missing"]) for row in rows] == [("credit", "its time was up")]
    assert "| credit | not measured: its time was up |" in done.stdout


@pytest.mark.slow
@pytest.mark.needs_torch
def test_all_parts_run(tmp_path: Path) -> None:
    found, _ = measured(tmp_path)
    assert {row["what"].split(" ")[0].rstrip(":") for row in found["rows"]} >= {"RL", "viewer", "command", "driver"}


def test_the_page_has_the_rows_of_the_results_file() -> None:
    done = run("--report")
    assert done.returncode == 0, done.stderr
    page = PAGE.read_text("utf-8")
    begin, end = page.index("<!-- measured: begin"), page.index("<!-- measured: end -->")
    assert page[begin:end] == done.stdout[: done.stdout.index("<!-- measured: end -->")]
    results = json.loads(RESULTS.read_text("utf-8"))
    assert not results["tiny"]
    areas = ("driver", "credit", "advantages", "sandbox", "RL step", "stored data", "viewer", "command line")
    for area in areas:
        assert any(row["what"].startswith(area) and row.get("today") for row in results["rows"]), area
    for row in results["rows"]:
        lines = [line for line in page.splitlines() if line.startswith(f"| {row['what']} |")]
        assert len(lines) == 1, row["what"]
        for figure in (row.get("peer"), row.get("limit")):
            assert figure is None or f"| {figure['name']}: " in lines[0]
