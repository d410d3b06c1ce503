"""Judges of the user's own: only where named, in a process of their own, never without end, never unheard."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rewright.core.errors import InputError, JudgeError
from rewright.core.records import Gold, Task, Trajectory
from rewright.core.registry import temporary
from rewright.judging import judge_answer, judge_trajectory
from rewright.judging.judges import check_judge
from rewright.pipeline.run_directory import Run
from rewright.pipeline.runner import Pipeline
from rewright.pipeline.stages.verdicts import MAX_JUDGE_FAILURES
from rewright.recipe.loader import load_recipe
from rewright.tasks.validation import validate_tasks

JUDGES = """
import os, re, sys, time
from pathlib import Path
from rewright.core.errors import InputError
from rewright.judging import Judgement

def judge(answer, golds):
    if answer == "sleep":
        time.sleep(1000)
    if answer == "loop in C":
        re.match("(a+)+$", "a" * 60 + "b")
    if answer == "exit":
        sys.exit(3)
    if answer == "die":
        os._exit(7)
    if answer == "raise":
        raise KeyError(answer)
    if answer == "mistake":
        raise InputError("the judge wants numbers")
    if answer == "float":
        return 1.0
    if answer == "nan":
        return Judgement(float("nan"), "")
    if answer == "metric":
        return Judgement(1.0, "", {"speed": float("inf")})
    if answer == "print":
        print("spoken by the judge")
    return Judgement(float(answer == golds[0]), "compared", {"pid": os.getpid(), "key": float(os.environ["JUDGE_KEY"])})
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The import path of a judge in a module of the user's."""
    (tmp_path / "my_judges.py").write_text(JUDGES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_judges", raising=False)
    monkeypatch.setenv("JUDGE_KEY", "5")
    return "my_judges:judge"


def test_it_runs_elsewhere_with_the_users_environment(own: str, capfd: pytest.CaptureFixture[str]) -> None:
    right, wrong = judge_answer(own, "print", ["print"]), judge_answer(own, "x", ["y"])
    assert (right.outcome, wrong.outcome, right.reason, right.metrics["key"]) == (1, 0, "compared", 5)
    assert right.metrics["pid"] == wrong.metrics["pid"] != os.getpid()
    spoken = capfd.readouterr()
    assert (spoken.out, spoken.err) == ("", "spoken by the judge\n")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("sleep", "takes more than 0.5 s"),
        ("loop in C", "takes more than 0.5 s"),
        ("exit", "SystemExit: 3"),
        ("die", r"ended its process \(exit status 7\)"),
        ("raise", "KeyError: 'raise'"),
        ("float", r"it returned 1\.0: expected a rewright\.judging\.Judgement"),
        ("nan", r"returned the outcome nan: expected a number in \[0, 1\]"),
        ("metric", "returned inf as the metric 'speed': expected a finite number"),
    ],
)
def test_whatever_it_does_is_an_error_of_the_judge_and_the_next_answer_is_judged(
    own: str, answer: str, said: str
) -> None:
    with pytest.raises(JudgeError, match=f"judge 'my_judges:judge' .*{said}"):
        judge_answer(own, answer, ["x"], seconds=0.5)
    assert judge_answer(own, "x", ["x"]).outcome == 1


def test_a_judge_of_whole_trajectories_by_import_path(own: str, tmp_path: Path) -> None:
    (tmp_path / "my_judges.py").write_text(
        "import os\nfrom rewright.judging import Judgement, TrajectoryJudge\n"
        "def judge(task, trajectory, answer):\n"
        "    kept = trajectory.stop_reason == 'answered' and task.metadata['wanted'] == answer\n"
        "    return Judgement(float(kept), answer, {'pid': os.getpid()})\n"
        "WHOLE = TrajectoryJudge(judge, needs=('metadata.wanted',))\n"
    )
    question = ({"role": "user", "content": "?"},)
    task = Task(id="a", messages=question, judge="my_judges:WHOLE", metadata={"wanted": "x"})
    answers = {}
    for answer in ("x", "y", ""):
        answers[answer] = judge_trajectory(task, attempt_of(answer))
    assert [one.outcome for one in answers.values()] == [1, 0, 0]
    assert answers["x"].metrics["pid"] == answers["y"].metrics["pid"] != os.getpid()
    with pytest.raises(InputError, match=r"judge my_judges:WHOLE needs metadata\.wanted, and the task has none"):
        judge_trajectory(Task(id="a", messages=question, judge="my_judges:WHOLE"), attempt_of("x"))
    lacking = msgspec.structs.replace(task, metadata={})
    (finding,) = validate_tasks([lacking], execute=False, judges=["my_judges"]).findings
    assert finding.message == "the judge my_judges:WHOLE needs metadata.wanted"


def attempt_of(answer: str) -> Trajectory:
    return Trajectory(id=answer, task_id="a", stage="s", index=0, turns=(), stop_reason="answered", answer=answer)


def test_its_word_on_a_mistake_of_the_user_is_passed_on(own: str) -> None:
    with pytest.raises(InputError, match=r"^the judge wants numbers$"):
        judge_answer(own, "mistake", ["x"])


def test_what_a_path_leads_to_is_said(own: str, tmp_path: Path) -> None:
    (tmp_path / "broken_judges.py").write_text("def judge(:\n")
    for path, said in (
        ("my_judges:jugde", "has no attribute 'jugde'"),
        ("my_judges:Path", "TypeError: "),
        ("broken_judges:judge", "SyntaxError: "),
        (".judges:judge", "TypeError: "),
        ("my_judges:os", "is a module: expected a function"),
    ):
        with pytest.raises((InputError, JudgeError), match=said):
            judge_answer(path, "x", ["x"])


def test_a_task_file_cannot_name_whatever_it_likes(own: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    question = ({"role": "user", "content": "?"},)
    task = Task(id="a", messages=question, judge="shutil:rmtree", gold=Gold(answers=(str(victim),)))
    (finding,) = validate_tasks([task], execute=False).findings
    assert "judge 'shutil:rmtree' is code, which runs only if you allow its package" in finding.message
    assert victim.exists()
    mine = Task(id="a", messages=question, judge=own, gold=Gold(answers=("x",)))
    assert "expected my_judges in `judges`" in validate_tasks([mine], execute=False).findings[0].message
    assert validate_tasks([mine], execute=False, judges=["my_judges"]).findings == ()
    for named in (["my_judge"], ["my"], []):
        with pytest.raises(InputError, match="is code"):
            check_judge(own, named)


def run_with(folder: Path, judge: str, answers: list[str], *settings: str) -> Run:
    task = {"id": "a", "messages": [{"role": "user", "content": "?"}], "judge": judge, "gold": {"answers": ["x"]}}
    (folder / "tasks.jsonl").write_text(json.dumps(task) + "\n")
    recipe = load_recipe(
        None, ["stages=[judge]", f"tasks={folder / 'tasks.jsonl'}", "tasks.format=rewright", *settings]
    )
    run = Run.create(folder / "run", recipe, resume=False)
    for number, answer in enumerate(answers):
        run.trajectories.append(
            Trajectory(
                id=f"t{number}", task_id="a", stage="s", index=number, turns=(), stop_reason="answered", answer=answer
            )
        )
    return run


def judged(run: Run) -> dict[str, Any]:
    return {one.trajectory_id: one.outcome for one in run.verdicts}


def test_one_answer_that_cannot_be_judged_leaves_the_others_their_verdicts(own: str, tmp_path: Path) -> None:
    run = run_with(tmp_path, own, ["x", "raise", "y", "die", "x"], "judges=[my_judges]")
    with pytest.raises(JudgeError, match=r"^2 answers could not be judged \(3 could\), the first: t1: .*KeyError"):
        Pipeline(run).run_all()
    assert judged(run) == {"t0": 1, "t2": 0, "t4": 1}
    assert not run.is_done("judge")
    (tmp_path / "my_judges.py").write_text(JUDGES.replace('"raise"', '"?"').replace('"die"', '"?"'))
    from rewright.workers import pool as process

    process.close()  # as a new process would, it reads the mended file
    Pipeline(run).run_all()
    assert judged(run) == {"t0": 1, "t1": 0, "t2": 0, "t3": 0, "t4": 1}
    assert [one.trajectory_id for one in run.verdicts] == ["t0", "t1", "t2", "t3", "t4"]


def test_a_judge_that_fails_on_everything_is_not_asked_for_ever(own: str, tmp_path: Path) -> None:
    run = run_with(tmp_path, own, ["raise"] * 3 * MAX_JUDGE_FAILURES, "judges=[my_judges]")
    with pytest.raises(JudgeError, match=rf"^{MAX_JUDGE_FAILURES} answers could not be judged \(0 could\)"):
        Pipeline(run).run_all()


def test_the_recipe_gives_it_its_time_and_its_leave(own: str, tmp_path: Path) -> None:
    run = run_with(tmp_path, own, ["sleep"], "judges=[my_judges]", "judge_seconds=0.3")
    with pytest.raises(JudgeError, match=r"takes more than 0\.3 s"):
        Pipeline(run).run_all()
    (tmp_path / "second").mkdir()
    run = run_with(tmp_path / "second", own, ["x"])
    with pytest.raises(InputError, match=r"tasks\.jsonl:1: judge 'my_judges:judge' is code"):
        Pipeline(run).run_all()


def test_it_does_not_outlive_a_killed_process(own: str, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    os.mkfifo(mark)  # opening it waits for the judge
    (tmp_path / "my_judges.py").write_text(
        f"import os, time\ndef judge(a, g):\n  open({str(mark)!r}, 'w').write(str(os.getpid()))\n  time.sleep(1000)\n"
    )
    program = "from rewright.judging import judge_answer; judge_answer('my_judges:judge', 'x', ['x'])"
    path = os.pathsep.join(sys.path)
    asking = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path})
    process = os.pidfd_open(int(mark.read_text()))
    asking.send_signal(signal.SIGKILL)
    asking.wait()
    ended, _, _ = select.select([process], [], [], 60)
    os.close(process)
    assert ended


def test_a_judge_without_import_path_that_returns_no_judgement_is_told() -> None:
    wrong: Any = lambda answer, golds: 1.0  # noqa: E731
    with (
        temporary("judge", wrong) as name,
        pytest.raises(JudgeError, match=r"returned 1\.0, expected a rewright\.judging\.Judgement"),
    ):
        judge_answer(name, "x", ["x"])
