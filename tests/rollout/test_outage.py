"""A stage in which everything breaks stops with the reason, and stores nothing that a later attempt would skip."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rewright.cli import main as cli
from rewright.core.errors import EngineError, InputError, SandboxError
from rewright.core.records import Failure, Quality, Trajectory, Turn, Verdict
from rewright.pipeline.run_directory import Run
from rewright.rollout.outage import MAX_INITIAL_FAILURES, Outage


def trajectory(number: int, kind: str | None = None) -> Trajectory:
    failure = None if kind is None else Failure(kind, f"no {number}")
    reason = "answered" if kind is None else "error"
    return Trajectory(id=str(number), task_id="t", stage="s", index=0, turns=(), stop_reason=reason, failure=failure)


def stored(kinds: list[str | None], *, worked: bool = False) -> list[int]:
    """The numbers of the trajectories that are stored, in order."""
    numbers: list[int] = []
    outage = Outage("candidates", worked=worked)
    for number, kind in enumerate(kinds):
        outage.record(trajectory(number, kind), lambda number=number: numbers.append(number))  # type: ignore[misc]
    outage.finish()
    return numbers


def test_what_broke_is_stored_as_soon_as_something_works() -> None:
    assert stored([]) == []
    assert stored([None, "engine", None]) == [0, 1, 2]
    assert stored(["engine", "tool", None, "engine"]) == [0, 1, 2, 3]
    assert stored(["engine"] * 3, worked=True) == [0, 1, 2]
    assert stored([None, *["engine"] * (2 * MAX_INITIAL_FAILURES)]) == list(range(2 * MAX_INITIAL_FAILURES + 1))


@pytest.mark.parametrize(("kind", "error"), [("engine", EngineError), ("sandbox", SandboxError), ("input", InputError)])
def test_where_nothing_works_the_last_reason_is_raised(kind: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="candidates: the only trajectory failed: no 0"):
        stored([kind])
    with pytest.raises(error, match="candidates: all of the first 3 trajectories failed: no 2"):
        stored([kind] * 3)
    with pytest.raises(error, match=f"all of the first {MAX_INITIAL_FAILURES} trajectories failed"):
        stored([kind] * MAX_INITIAL_FAILURES + [None])  # those behind are not waited for


@contextmanager
def nobody() -> Iterator[str]:
    """An address that nobody answers at: a port that is taken and not listened to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


@pytest.mark.parametrize("stage", ["eval_base", "synth"])
def test_a_server_that_is_not_there_is_no_success_of_zero(
    tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with nobody() as address:
        model = f"{{path: m, engine: openai, base_url: '{address}', attempts: 1, mode: chat}}"
        Path("r.yaml").write_text(
            f"stages: [{stage}]\nmodel: {model}\ntasks: {{count: 2}}\neval: {{tasks: {{count: 2}}}}\n"
        )
        with pytest.raises(EngineError, match=r"all of the first [24] trajectories failed: POST http://127\.0\.0\.1"):
            cli.app(["run", "r.yaml"], standalone_mode=False)
    assert "0.0%" not in capsys.readouterr().out
    run = Run.open(Path("runs/run"))
    assert list(run.trajectories) == [] and not list(run.path.glob("evaluations/*"))
    assert not run.is_done(stage)


def test_a_repairer_that_is_not_there_makes_no_hard_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = {"id": "t", "messages": [{"role": "user", "content": "q"}], "gold": {"answers": ["1"]}}
    Path("t.jsonl").write_text(json.dumps(task) + "\n")
    with nobody() as address:
        model = f"{{path: m, engine: openai, base_url: '{address}', attempts: 1, mode: chat}}"
        Path("made").mkdir()
        Path("made/recipe.yaml").write_text(f"tasks: t.jsonl\nmodel: {model}\nrepair: {{attempts: 2}}\n")
        run = Run.open(Path("made"))
        turns = (Turn(text="<answer>2</answer>"),)
        run.trajectories.append(
            Trajectory(id="a", task_id="t", stage="synth", index=0, turns=turns, stop_reason="answered", answer="2")
        )
        run.verdicts.append(Verdict(trajectory_id="a", outcome=0.0, reason="wrong"))
        run.qualities.append(
            Quality(confidence=1, length=1, repetition=1, total=1, trajectory_id="a", selected="wrong")
        )
        for file in (run.trajectories, run.verdicts, run.qualities):
            file.close()
        with pytest.raises(EngineError, match="repairs: the only trajectory failed: POST"):
            cli.app(["repair", "made"], standalone_mode=False)
    assert [one.id for one in run.trajectories] == ["a"]
    assert list(run.repairs) == []
