"""Runs whose trajectories are a folder of shards: the results of a run in one file, shard by shard."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewright.core.records import Quality, Verdict
from rewright.core.shards import copy_as_lines
from support import in_process
from support.sharded_runs import results, rows, write_shards, write_whole

VERBS = ("judge", "score", "credit")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one file, judged, scored and with its credit in credit.jsonl."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    write_whole(folder)
    done = in_process.rewright(folder, "run", ".", "--resume")
    assert done.code == 0, done.errors
    done = in_process.rewright(folder, "credit", ".", "--json")
    assert done.code == 0, done.errors
    (folder / "credit.jsonl").write_text(done.output)
    return folder


@pytest.fixture(scope="module")
def finished(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run as four shards, with all results."""
    return all_passes(write_shards(tmp_path_factory.mktemp("shards") / "run", whole))


def all_passes(folder: Path) -> Path:
    for verb in VERBS:
        done = in_process.rewright(folder, verb, ".")
        assert done.code == 0, done.errors
    return folder


def test_the_shards_of_results_are_the_results_of_the_whole_run(whole: Path, finished: Path) -> None:
    for name in ("verdicts", "quality", "credit"):
        parts = [(finished / name / f"part-{number:03}.jsonl").read_bytes() for number in range(4)]
        assert all(parts)
        assert b"".join(parts) == (whole / f"{name}.jsonl").read_bytes()


def test_parquet_shards_have_the_results_of_lines(whole: Path, finished: Path, tmp_path: Path) -> None:
    run = all_passes(write_shards(tmp_path / "run", whole, suffix=".parquet"))
    for name, kind in (("verdicts", Verdict), ("quality", Quality)):
        for number in range(4):
            copy = tmp_path / "copy.jsonl"
            copy_as_lines(run / name / f"part-{number:03}.parquet", kind, copy)
            expected = (finished / name / f"part-{number:03}.jsonl").read_bytes().splitlines()
            decoder = msgspec.json.Decoder(kind)
            assert list(map(decoder.decode, copy.read_bytes().splitlines())) == list(map(decoder.decode, expected))
    for number in range(4):
        table = pq.read_table(run / "credit" / f"part-{number:03}.parquet").to_pylist()
        expected_rows = rows((finished / "credit" / f"part-{number:03}.jsonl").read_bytes())
        assert [one["id"] for one in table] == [one["id"] for one in expected_rows]
        assert [json.loads(one["turn_rewards"]) for one in table] == [one["turn_rewards"] for one in expected_rows]


def test_a_finished_shard_is_not_done_again_and_a_newer_one_is(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    expected = results(run)
    missing, newer = "quality/part-001.jsonl", "quality/part-002.jsonl"
    (run / missing).unlink()
    (run / "quality/part-003.jsonl").write_text("kept as it is\n")  # finished, so it is not even looked at
    (run / newer).write_text("")
    os.utime(run / newer, ns=(0, 0))
    done = in_process.rewright(run, "score", ".", "--json")
    assert done.code == 0, done.errors
    assert json.loads(done.output)["shards"] == 4
    assert json.loads(done.output)["done_before"] == 2
    found = results(run)
    assert found.pop("quality/part-003.jsonl") == b"kept as it is\n"
    assert found == {name: data for name, data in expected.items() if name != "quality/part-003.jsonl"}


def test_a_task_in_two_shards_is_refused_before_anything_is_written(whole: Path, tmp_path: Path) -> None:
    run = write_shards(tmp_path / "run", whole)
    first, second = run / "trajectories/part-000.jsonl", run / "trajectories/part-001.jsonl"
    lines = second.read_bytes().splitlines(keepends=True)
    first.write_bytes(first.read_bytes() + lines[0])
    second.write_bytes(b"".join(lines[1:]))
    assert in_process.rewright(run, "judge", ".").code == 0  # verdicts need no groups
    for verb in ("score", "credit"):
        in_process.rewright(run, verb, ".").refused("part-000.jsonl and part-001.jsonl have trajectories of one task")
    assert not (run / "quality").exists()
    assert not (run / "credit").exists()


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_an_invalid_record_is_named_by_its_place_in_the_shard(suffix: str, whole: Path, tmp_path: Path) -> None:
    run = write_shards(tmp_path / "run", whole, suffix=suffix)
    bad = run / f"trajectories/part-002{suffix}"
    if suffix == ".jsonl":
        lines = bad.read_bytes().splitlines(keepends=True)
        lines[4] = lines[4].replace(b'"index":', b'"index":"x","old":')
        bad.write_bytes(b"".join(lines))
    else:
        table = pq.read_table(bad).to_pylist()
        table[4]["turns"] = "[{"
        pq.write_table(pa.Table.from_pylist(table), bad)
    in_process.rewright(run, "judge", ".").refused(f"part-002{suffix}:5")
    assert [path.name for path in sorted((run / "verdicts").glob("part*"))] == [
        f"part-000{suffix}",
        f"part-001{suffix}",
    ]


@pytest.mark.needs_torch
def test_results_of_other_settings_are_refused(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text() + "quality: {all_high: 0.5}\n")
    before = results(run)
    in_process.rewright(run, "score", ".").refused("quality was made with other settings or tasks")
    in_process.rewright(run, "credit", ".", "gamma=0.5").refused("credit was made with other settings or tasks")
    batch = ("--estimator", "outcome_or_calls", "estimator.decay=batch")
    for estimator in (batch, ("--estimator", "gdpo")):
        in_process.rewright(run, "credit", ".", *estimator).refused(f"estimator {estimator[1]} compares the groups of")
    assert results(run) == before


@pytest.mark.needs_torch
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--signal", "score"), "signal score has no number for a turn of any trajectory"),
        (("--stage", "rl"), "--stage rl: "),
    ],
)
def test_credit_of_nothing_is_a_mistake_on_shards_too(
    whole: Path, finished: Path, tmp_path: Path, options: tuple[str, str], said: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "credit")
    for folder in (whole, run):
        in_process.rewright(folder, "credit", ".", *options).refused(said)


def test_what_is_missing_is_said_in_one_line(whole: Path, tmp_path: Path) -> None:
    run = write_shards(tmp_path / "run", whole)
    in_process.rewright(run, "score", ".").refused("no verdicts of shard part-000.jsonl")
    in_process.rewright(whole, "judge", ".", "--ray").refused("has no folder trajectories with .jsonl or .parquet")
    in_process.rewright(run, "judge", ".", "--ray").refused("--ray needs Ray: pip install 'rewright[ray]'")
    in_process.rewright(run, "repair", ".").refused("its trajectories are shards, which repair does not read")
    (run / "trajectories/notes.txt").write_text("")
    in_process.rewright(run, "judge", ".").refused("notes.txt: expected only shards in this folder")
    (run / "trajectories/notes.txt").unlink()
    (run / "trajectories.jsonl").write_text("")
    in_process.rewright(run, "judge", ".").refused("has both trajectories.jsonl and a folder trajectories")


def test_nested_parquet_columns_are_refused(whole: Path, tmp_path: Path) -> None:
    run = write_shards(tmp_path / "run", whole, count=1, suffix=".parquet")
    shard = run / "trajectories/part-000.parquet"
    table: list[dict[str, Any]] = pq.read_table(shard).to_pylist()
    for row in table:
        row["turns"] = json.loads(row["turns"])
    pq.write_table(pa.Table.from_pylist(table), shard)
    in_process.rewright(run, "judge", ".").refused("the column turns is nested: expected text with JSON in it")
