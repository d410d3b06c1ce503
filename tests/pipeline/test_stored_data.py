"""judge, score and credit of a large run: several processes give what one gives, and faults cost nothing."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from rewright.core.errors import WorkerError
from rewright.core.records import Gold, Task, ToolCall, Trajectory, Turn
from rewright.core.storage import encode_line
from rewright.reports.credit_table import credit_as_json, credit_as_table
from rewright.reports.stored_credit import credit, read_stored, settings_for
from rewright.tasks.loading import save_tasks
from rewright.workers.ordered import in_order, process_count

ALL_CORES = sorted(os.sched_getaffinity(0))
PROGRAM = "from rewright.cli.main import main; main()"


def write_run(folder: Path, *, scattered: bool) -> Path:
    """Three candidates of each of 250 tasks, 1.5 MB; `scattered`: in any order."""
    draw = random.Random(0)
    tasks, rows = [], []
    for number in range(250):
        call = ToolCall(f"look{number % 3}", {"place": f"p{number}", "unit": "km"}, raw="")
        prompt = ({"role": "user", "content": f"question {number}"},)
        tasks.append(Task(id=f"t{number}", messages=prompt, gold=Gold(answers=(str(number % 7),), calls=(call,) * 2)))
        for index in range(3):
            made = ToolCall(call.name, {"place": f"p{number}", "unit": draw.choice(["km", "mile"])}, raw="{}")
            words = " ".join(draw.choice(["so", "maybe", "then", "next"]) for _ in range(300))
            answer = str(draw.randrange(7))
            turns = (
                Turn(text=f"<think>{words}</think>", calls=(made,) * draw.randrange(3)),
                Turn(text=f"<answer>{answer}</answer>"),
            )
            rows.append(
                Trajectory(
                    id=f"synth/t{number}/{index}", task_id=f"t{number}", stage="synth", index=index, turns=turns,
                    stop_reason="answered", answer=answer,
                )
            )  # fmt: skip
    if scattered:
        draw.shuffle(rows)
    folder.mkdir(parents=True)
    save_tasks(folder / "given.jsonl", tasks)
    recipe = f"tasks: {{format: rewright, path: {folder / 'given.jsonl'}}}\nstages: [judge, score]\n"
    (folder / "recipe.yaml").write_text(recipe)
    (folder / "trajectories.jsonl").write_bytes(b"".join(map(encode_line, rows)))
    assert process_count((folder / "trajectories.jsonl").stat().st_size) == min(4, len(ALL_CORES))
    return folder


def command(*arguments: str, cores: int = 2, before: Callable[[], None] = lambda: None) -> subprocess.Popen[str]:
    def prepare() -> None:
        os.sched_setaffinity(0, ALL_CORES[:cores])
        before()

    # The limits must hold before the command starts; this process has no other thread.
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=prepare,  # noqa: PLW1509
    )  # fmt: skip


def rewright(*arguments: str, cores: int = 2, before: Callable[[], None] = lambda: None) -> tuple[int, str, str]:
    process = command(*arguments, cores=cores, before=before)
    output, errors = process.communicate()
    return process.returncode, output, errors


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / f"{name}.jsonl").read_bytes() for name in ("verdicts", "quality")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that one process has judged and scored."""
    folder = write_run(tmp_path_factory.mktemp("one") / "run", scattered=False)
    code, _, errors = rewright("run", str(folder), "--resume", cores=1)
    assert code == 0, errors
    return folder


def restarted(finished: Path, folder: Path) -> Path:
    shutil.copytree(finished, folder)
    for name in ("verdicts.jsonl", "quality.jsonl", "state.json"):
        (folder / name).unlink()
    return folder


def test_several_processes_write_what_one_writes(finished: Path, tmp_path: Path) -> None:
    run = restarted(finished, tmp_path / "run")
    code, _, errors = rewright("run", str(run), "--resume")
    assert code == 0, errors
    assert results(run) == results(finished)
    ids = [json.loads(line)["id"] for line in (run / "trajectories.jsonl").read_text().splitlines()]
    assert [json.loads(line)["trajectory_id"] for line in results(run)["verdicts"].splitlines()] == ids


@pytest.mark.parametrize("scattered", [False, True])
def test_credit_streams_the_values_that_are_computed_in_memory(scattered: bool, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", scattered=scattered)
    code, _, errors = rewright("run", str(run), "--resume")
    assert code == 0, errors
    in_memory = credit(read_stored(run), None, settings_for(run))
    code, output, warned = rewright("credit", str(run), "--json")
    assert code == 0, warned
    assert output.splitlines() == [json.dumps(credit_as_json(one)) for one in in_memory]
    code, table, _ = rewright("credit", str(run), cores=1)
    assert code == 0
    assert table.splitlines() == list(credit_as_table(in_memory))
    qualities = [json.loads(line)["trajectory_id"] for line in (run / "quality.jsonl").read_text().splitlines()]
    assert qualities == [one.stored.id for one in in_memory]


def test_a_full_disk_and_a_kill_lose_nothing(finished: Path, tmp_path: Path) -> None:
    run = restarted(finished, tmp_path / "run")

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    code, _, errors = rewright("judge", str(run), before=small_disk)
    assert code == 1
    assert "error: cannot write" in errors
    assert "Traceback" not in errors
    process = command("run", str(run), "--resume")
    verdicts = run / "verdicts.jsonl"
    while process.poll() is None and (not verdicts.exists() or verdicts.stat().st_size < 40_000):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    code, _, errors = rewright("run", str(run), "--resume")  # at once: no child holds the lock of the run
    assert code == 0, errors
    assert results(run) == results(finished)


def test_a_corrupt_line_near_the_end_is_found_before_anything_is_written(finished: Path, tmp_path: Path) -> None:
    run = restarted(finished, tmp_path / "run")
    lines = (run / "trajectories.jsonl").read_bytes().splitlines(keepends=True)
    lines[700] = lines[700].replace(b'"turns"', b'"turn"', 1)
    (run / "trajectories.jsonl").write_bytes(b"".join(lines))
    for verb in ("judge", "credit"):
        code, output, errors = rewright(verb, str(run))
        assert code == 2
        assert output == ""
        assert f"{run / 'trajectories.jsonl'}:701: not a valid record" in errors
    assert not (run / "verdicts.jsonl").exists()


def test_an_unknown_key_is_named_with_its_line(finished: Path, tmp_path: Path) -> None:
    run = restarted(finished, tmp_path / "run")
    lines = (run / "trajectories.jsonl").read_bytes().splitlines(keepends=True)
    lines[700] = lines[700].replace(b"{", b'{"extra":1,', 1)
    (run / "trajectories.jsonl").write_bytes(b"".join(lines))
    code, _, errors = rewright("credit", str(run))
    assert code == 2
    assert f"{run / 'trajectories.jsonl'}:701: unknown key 'extra'" in errors


def test_results_are_in_order_and_an_error_is_raised_in_its_place() -> None:
    def function(item: int) -> list[tuple[int, int]]:
        if item == 40:
            raise ValueError("item 40")
        return [(item, part) for part in range(item % 3)]

    with pytest.raises(ValueError, match="item 40"):
        list(in_order(function, range(100), processes=3))
    found = list(in_order(function, range(40), processes=3))
    assert found == [(item, part) for item in range(40) for part in range(item % 3)]


def test_a_child_that_dies_is_an_error() -> None:
    def function(item: int) -> list[int]:
        if item == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return [item]

    with pytest.raises(WorkerError, match="exit status -9"):
        list(in_order(function, range(20), processes=2))
    with suppress(ChildProcessError):  # none is left behind
        assert os.waitpid(-1, os.WNOHANG) == (0, 0)


def test_a_record_written_otherwise_is_read_all_the_same(finished: Path, tmp_path: Path) -> None:
    """Spaces, another order of the keys: the quick comparison with our own writing does not hold."""
    run = shutil.copytree(finished, tmp_path / "run")
    _, before, _ = rewright("credit", str(run), "--json")
    lines = (run / "trajectories.jsonl").read_bytes().splitlines()
    rows = [dict(reversed(msgspec.json.decode(line).items())) for line in lines]
    (run / "trajectories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, after, errors = rewright("credit", str(run), "--json")
    assert code == 0, errors
    assert after == before
