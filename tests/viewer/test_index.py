"""The index of a large run: stored beside the files, extended when they grow, made again when they were replaced."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rewright.core.records import Trajectory, Turn, Verdict
from rewright.pipeline.run_directory import Run
from rewright.recipe.schema import Recipe
from support import in_process
from support.static_page import page_data

COUNT = 900
Shown = Callable[[], Any]


def line(number: int, answer: str = "36") -> bytes:
    one = Trajectory(
        id=f"synth/{number}", task_id="t", stage="synth", index=number, turns=(Turn("word " * 1200),),
        stop_reason="answered", answer=f"{answer} {number}",
    )  # fmt: skip
    return msgspec.json.encode(one) + b"\n"


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    """Shows the run anew, by the command, and returns what the page holds of its first trajectories."""
    run = Run.create(tmp_path / "run", Recipe(), resume=False)
    (run.path / "trajectories.jsonl").write_bytes(b"".join(map(line, range(COUNT))))
    run.verdicts.append(Verdict(trajectory_id="synth/0", outcome=1.0, reason="equal"))
    run.verdicts.close()

    def show() -> Any:
        said = in_process.rewright(tmp_path, "view", "run", "--static", "page.html", "--examples", "2")
        assert said.code == 0, said.errors
        return page_data(tmp_path / "page.html")["runs"][0]

    return show


def test_a_stored_index_gives_the_same_and_is_extended(shown: Shown, tmp_path: Path) -> None:
    first = shown()
    assert first["head"]["trajectories"] == COUNT and first["head"]["facets"]["verdict"][0] == ["right", 1]
    index = tmp_path / "run/.view/index"
    stored = index.read_bytes()
    assert len(stored) < COUNT * 300
    assert shown() == first and index.read_bytes() == stored
    file = tmp_path / "run/trajectories.jsonl"
    with file.open("ab") as opened:
        opened.write(b"".join(map(line, range(COUNT, 2 * COUNT))) + line(2 * COUNT)[:100])
    grown = shown()
    assert grown["head"]["trajectories"] == 2 * COUNT, "an incomplete line is not there yet"
    assert len(index.read_bytes()) > 1.5 * len(stored)


@pytest.mark.parametrize("change", ["replaced", "edited", "shorter", "gone"])
def test_an_index_of_other_contents_is_not_used(shown: Shown, tmp_path: Path, change: str) -> None:
    shown()
    file = tmp_path / "run/trajectories.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    if change == "replaced":  # as a stage does that brings its records into order: the same size, another order
        other = tmp_path / "other.jsonl"
        other.write_bytes(b"".join(reversed(lines)))
        other.replace(file)
    elif change == "edited":
        changed = file.stat().st_mtime_ns + 1_000_000_000
        with file.open("r+b") as opened:
            opened.write(line(0, "42"))
        os.utime(file, ns=(changed, changed))
    elif change == "shorter":
        os.truncate(file, len(b"".join(lines[:10])))
    else:
        file.unlink()
    found = shown()
    rows = [(row["id"], row["answer"]) for row in found["rows"]]
    number = {"replaced": COUNT, "edited": COUNT, "shorter": 10, "gone": 0}[change]
    assert found["head"]["trajectories"] == number
    if change == "replaced":
        assert (f"synth/{COUNT - 1}", f"36 {COUNT - 1}") in rows
    if change == "edited":
        assert ("synth/0", "42 0") in rows


@pytest.mark.parametrize("content", [b"", b"no index", b"\x83\xa6format\x01"])
def test_an_index_that_cannot_be_read_is_made_again(shown: Shown, tmp_path: Path, content: bytes) -> None:
    first = shown()
    (tmp_path / "run/.view/index").write_bytes(content)
    assert shown() == first


def test_a_run_that_cannot_be_written_is_shown(shown: Shown, tmp_path: Path) -> None:
    (tmp_path / "run/.view").write_text("a file in the place of the folder")
    assert shown()["head"]["trajectories"] == COUNT
