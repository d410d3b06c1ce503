"""The learning benchmarks' bookkeeping: what counts as finished, and the numbers of the report."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

from learning_curves.report import draw, reached, table
from learning_curves.schedule import Job, missing, read_results, run_all

from rewright.core.errors import InputError


def row(method: str, success: list[float], *, seed: int = 0) -> dict[str, object]:
    return {
        "base": "1%", "method": method, "seed": seed, "steps": len(success), "rollouts_per_step": 64,
        "success": success, "equal_groups": [0.5] * len(success), "held_out": success[-1], "seconds": 1,
    }  # fmt: skip


def same_numbers(job: Job) -> dict[str, object]:
    return row(job.method, [0.1, 0.2], seed=job.seed)


def test_a_stopped_benchmark_goes_on_where_it_stopped(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    results.write_text(json.dumps(row("outcome", [0.1, 0.2])) + '\n{"base": "1%", "meth')
    jobs = [Job("1%", method, 0, 2) for method in ("outcome", "matchtir-hard")]
    left = missing(jobs, read_results(results))
    assert left == jobs[1:]
    run_all(left, same_numbers, results, processes=1)
    assert missing(jobs, read_results(results)) == []
    assert len(results.read_text().splitlines()) == 2
    assert missing([Job("1%", "outcome", 0, 3)], read_results(results))  # of another length: another run


def fails_for_seed_0(job: Job) -> dict[str, object]:
    if job.seed == 0:
        raise InputError("there is no such base")
    return row(job.method, [0.1, 0.2], seed=job.seed)


def test_a_job_that_fails_loses_no_row_of_the_others_and_begins_no_further_one(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    with pytest.raises(InputError, match="there is no such base"):
        run_all([Job("1%", "outcome", seed, 2) for seed in range(3)], fails_for_seed_0, results, processes=2)
    assert 1 in {one["seed"] for one in read_results(results)}
    assert missing([Job("1%", "outcome", 0, 2)], read_results(results))


def beats(folder: Path) -> None:
    for number in range(600):
        (folder / f"{number}").touch()
        time.sleep(0.1)


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
from test_learning_benchmark import beats
from learning_curves.schedule import each_result
if __name__ == "__main__":
    list(each_result([Path({folder!r})], beats, processes=1))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_job_ends_with_the_process_that_began_it(tmp_path: Path, number: signal.Signals) -> None:
    """Its result would be lost, and it would go on for hours beside the next one."""
    folder, script = tmp_path / "beats", tmp_path / "script.py"
    folder.mkdir()
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    script.write_text(SCRIPT.format(paths=paths, folder=str(folder)))
    parent = subprocess.Popen([sys.executable, str(script)])
    try:
        while not any(folder.iterdir()):
            assert parent.poll() is None
            time.sleep(0.1)
    finally:
        parent.send_signal(number)
        parent.wait()
    deadline = time.monotonic() + 30
    before, now = -1, len(list(folder.iterdir()))
    while before != now:  # ten beats a second
        assert time.monotonic() < deadline
        time.sleep(2)
        before, now = now, len(list(folder.iterdir()))


@pytest.mark.needs_torch
def test_the_run_of_a_reward_model_begins_in_a_new_folder_and_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl")
    from learning_curves import reward
    from learning_curves.runs import Base

    monkeypatch.setattr(reward, "TASKS", 1)
    base = Base("5%", {4: 1.0}, outdated=0.9)
    made = reward.reward_model_of(base, tmp_path / "build" / "reward-5")
    state = (tmp_path / "build/reward-5/state.json").read_bytes()
    assert reward.reward_model_of(base, tmp_path / "build" / "reward-5") == made
    assert (tmp_path / "build/reward-5/state.json").read_bytes() == state


def test_rollouts_to_a_level_count_what_was_taken_before() -> None:
    rises = np.array([0.0, 0.0, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert reached(rises, 0.25, 64) == 3 * 64  # the mean of the first four steps
    assert reached(rises, 0.5, 64) == 6 * 64
    assert reached(rises, 0.6, 64) is None
    assert reached(rises, 0.0, 64) == 0


def test_the_report_compares_methods_with_the_outcome(tmp_path: Path) -> None:
    slow = [row("outcome", [0.02, 0.02, 0.02, 0.02, 0.02, 0.3, 0.3, 0.3, 0.3, 0.3], seed=seed) for seed in (0, 1)]
    fast = [row("matchtir-hard", [0.02, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3])]
    printed = table([*slow, *fast])
    assert "| outcome | 2 | 0.020 | 0.160 ± 0.000 | 0.300 ± 0.000 | 0.300 ± 0.000 | 0.50 |" in printed
    assert "| matchtir-hard | 1 | 0.020 | 0.272 | 0.300 | 0.300 | 0.50 |" in printed
    assert "64 (0.20) |" in printed  # to 0.1: after 1 step instead of 6
    assert "| matchtir-hard | 1 | +11.2 | +0.0 | +0.0 |" in printed  # seed 0 of both
    assert "0.5 (ratio)" not in printed  # nobody got there
    draw([*slow, *fast], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_broken_results_file_is_named(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    results.write_text("nonsense\n" + json.dumps(row("outcome", [0.1])) + "\n")
    with pytest.raises(SystemExit, match=r"results\.jsonl:1"):
        read_results(results)
