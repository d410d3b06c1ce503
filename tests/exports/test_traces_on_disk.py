"""Exports of whole trajectories: what happens to files, with a full disk, with devices, and without trajectories."""

from __future__ import annotations

import resource
import shutil
import sqlite3
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from rewright.exports.hub_traces import file_name
from support.exporting import FILES, FORMATS, STORED, export, refused, stored
from support.hard_trajectories import hard, made_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run that Rewright has made, with evaluation and RL, and one with the hard trajectories."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(STORED, folder / "stored")
    return {"stored": folder / "stored", "hard": made_run(folder / "hard", hard())}


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_is_the_same_again_and_replaces_only_its_own_files(
    runs: dict[str, Path], tmp_path: Path, name: str
) -> None:
    for _ in range(2):
        (tmp_path / "mine.txt").write_text("mine")
        assert export(runs["stored"], tmp_path, name).exit_code == 0
        first = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".db"}
    assert export(runs["stored"], tmp_path, name).exit_code == 0
    again = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".db"}
    assert first == again
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_database_of_trackio_keeps_its_other_runs(runs: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "rewright.db"
    assert export(runs["hard"], tmp_path, "trackio-traces").exit_code == 0
    with sqlite3.connect(path) as database:
        database.execute(
            "INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) VALUES ('x', 'now', 'mine', 0, '{}')"
        )
    for _ in range(2):
        assert export(runs["stored"], tmp_path, "trackio-traces").exit_code == 0
    with sqlite3.connect(path) as database:
        names = [name for (name,) in database.execute("SELECT DISTINCT run_name FROM metrics ORDER BY 1")]
        (count,) = database.execute("SELECT count(*) FROM traces").fetchone()
    assert names == [
        "hard/trajectories", "mine", *[f"stored-by-0/{one}" for one in ("eval_base", "rollouts", "trajectories")],
    ]  # fmt: skip
    assert count == len(hard()) + sum(len(stored(STORED, file)) for file in FILES["stored"])


def test_a_file_that_is_no_database_is_not_replaced(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "rewright.db").write_text("my notes, not a database")
    assert "rewright.db: is no project database of trackio" in refused(runs["hard"], tmp_path, "trackio-traces")
    assert (tmp_path / "rewright.db").read_text() == "my notes, not a database"


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As on a full disk: no file can be longer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk_is_an_error_and_leaves_the_earlier_export_unchanged(
    runs: dict[str, Path], tmp_path: Path, name: str
) -> None:
    earlier, new = tmp_path / "earlier", tmp_path / "new"
    assert export(runs["hard"], earlier, name).exit_code == 0
    before = {path: path.read_bytes() for path in earlier.rglob("*") if path.is_file()}
    with largest_file(3000):
        messages = [refused(runs["stored"], folder, name) for folder in (earlier, new)]
    assert all("cannot write" in message for message in messages), messages
    assert {path: path.read_bytes() for path in earlier.rglob("*") if path.is_file()} == before
    assert [path for path in new.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("name", "file"),
    [("atif", "trajectories.atif.jsonl"), ("inspect", "trajectories.eval"), ("trackio-traces", "rewright.db"),
     ("verifiers", "trajectories/traces.jsonl"), ("hub-traces", f"trajectories/{file_name('synth/plain')}")],
)  # fmt: skip
def test_a_device_is_not_written_to(runs: dict[str, Path], tmp_path: Path, name: str, file: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).symlink_to("/dev/null")
    assert f"{file}: is a device: expected a file" in refused(runs["hard"], tmp_path, name)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_without_trajectories_has_nothing_to_export(tmp_path: Path, name: str) -> None:
    run = made_run(tmp_path, [])
    assert "has no trajectories to export" in refused(run, tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


def test_trajectories_without_a_turn_are_left_out_of_atif_and_counted(tmp_path: Path) -> None:
    nothing = [one for one in hard() if not one.turns]
    run = made_run(tmp_path / "one", [*hard()[:1], *nothing])
    assert "1 rows (1 left out: the format cannot represent them)" in export(run, tmp_path / "out", "atif").output
    run = made_run(tmp_path / "none", nothing)
    assert "atif can represent none of its trajectories" in refused(run, tmp_path / "none/out", "atif")
    assert list((tmp_path / "none/out").iterdir()) == []


def test_the_build_stage_is_not_needed(runs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(runs["stored"], tmp_path / "run")
    (tmp_path / "run/sft.jsonl").unlink()
    assert export(tmp_path / "run", tmp_path / "out", "atif").exit_code == 0


def test_a_corrupt_line_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    run = made_run(tmp_path, hard())
    with (run / "trajectories.jsonl").open("a") as file:
        file.write('{"id": 7}\n')
    for name in FORMATS:
        out = tmp_path / name
        assert f"trajectories.jsonl:{len(hard()) + 1}: not a valid record" in refused(run, out, name)
        assert [path for path in out.rglob("*") if path.is_file()] == []


def test_memory_is_that_of_a_trajectory_and_not_of_the_file(tmp_path: Path) -> None:
    (template,) = [one for one in hard() if one.id == "synth/plain"]

    def run(name: str, count: int, characters: int) -> Path:
        first = msgspec.structs.replace(template.turns[0], text="a word of thought " * (characters // 18))
        turns = (first, *template.turns[1:])
        many = [msgspec.structs.replace(template, id=f"synth/{number}", turns=turns) for number in range(count)]
        return made_run(tmp_path / name, many)

    def peak(path: Path, name: str) -> int:
        tracemalloc.start()
        try:
            assert export(path, tmp_path / "out", name).exit_code == 0
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = run("few", 3, 30_000), run("many", 30, 30_000)
    assert (many / "trajectories.jsonl").stat().st_size > 900_000
    for name in ("atif", "inspect", "hub-traces", "trackio-traces"):
        export(few, tmp_path / "out", name)  # what is imported at first use
        assert peak(many, name) - peak(few, name) < 300_000, name
