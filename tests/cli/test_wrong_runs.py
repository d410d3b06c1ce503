"""Runs that must not start, files that are none, and how a command ends: one line, and nothing written or lost."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support import in_process
from support.in_process import Said

QUESTION = {"role": "user", "content": "Where does Ann live?"}
ANSWERED = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "find", "arguments": "{}"}}]}
SCHEMA = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}
RECIPE = b"tasks: {format: rewright, path: t.jsonl}\nstages: [synth]\nmodel: pico\n"
PROGRAM = "from rewright.cli.main import main; main()"

Rewright = Callable[..., Said]


def task(**changes: Any) -> dict[str, Any]:
    tools = [{"schema": SCHEMA, "source": "def find():\n    return 'Rome'\n"}]
    return {"id": "a", "messages": [QUESTION], "tools": tools, "gold": {"answers": ["Rome"]}, **changes}


def lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.fixture
def rewright(tmp_path: Path) -> Rewright:
    return partial(in_process.rewright, tmp_path)


@pytest.mark.needs_torch
def test_a_run_to_go_on_with_must_be_there(rewright: Rewright, tmp_path: Path) -> None:
    """Nothing is begun anew, which would make everything again, and pay for it."""
    put(tmp_path, {"r.yaml": RECIPE, "t.jsonl": lines(task()), "other/notes.txt": b"mine"})
    (tmp_path / "empty").mkdir()
    for name in ("typo", "empty", "other"):
        rewright("run", "r.yaml", "--resume", "--run", name).refused(f"{name} contains no run to continue: expected")
    rewright("run", "r.yaml", "--resume").refused("runs/run contains no run to continue")
    rewright("quickstart", "--resume").refused("runs/quickstart contains no run to continue")
    rewright("eval", "--benchmark", "bfcl-multi-turn", "--resume").refused("contains no run to continue")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "other", "r.yaml", "t.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "r.yaml", "--run", ""], "the argument after --run is empty: expected a value"),
        (["run", "r.yaml", "--run="], "--run= is empty: expected a value"),
        (["run", ""], "the argument after run is empty"),
        (["judge", " "], "the argument after judge is empty"),
        (["import", "x.jsonl", "--run", "", "--recipe", "r.yaml"], "the argument after --run is empty"),
        (["export", "mine", ""], "the argument after mine is empty"),
        (["run", "r.yaml", "--run", "."], ". is not a run and contains mine: expected a new or an empty folder"),
        (
            ["run", "r.yaml", "--run", "mine"],
            "mine is not a run and contains notes.txt: expected a new or an empty folder",
        ),
        (
            ["run", "r.yaml", "--run", "nested"],
            "nested is not a run and contains below: expected a new or an empty folder",
        ),
        (["import", "x.jsonl", "--run", "mine", "--recipe", "r.yaml"], "mine is not a run and contains notes.txt"),
        (["run", "own/recipe.yaml", "--run", "own"], "own already contains a run"),
        (["run", "r.yaml", "name=../x"], "override 'name=../x': name: must be usable as a folder's name, got '../x'"),
        (["eval", "--benchmark", "bfcl-multi-turn", "name=../x"], "name: must be usable as a folder's name"),
    ],
)
def test_nothing_is_written_among_other_files(
    rewright: Rewright, tmp_path: Path, arguments: list[str], said: str
) -> None:
    trajectory = {"id": "x", "task_id": "a", "stage": "synth", "index": 0, "turns": [], "stop_reason": "no_answer"}
    put(
        tmp_path,
        {
            "r.yaml": RECIPE,
            "t.jsonl": lines(task()),
            "x.jsonl": lines(trajectory),
            "mine/notes.txt": b"mine",
            "own/recipe.yaml": b"# mine\n" + RECIPE,
        },
    )
    (tmp_path / "nested/below").mkdir(parents=True)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    rewright(*arguments).refused(said)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_empty_folder_is_good_for_a_run(rewright: Rewright, tmp_path: Path) -> None:
    trajectory = {"id": "x", "task_id": "a", "stage": "synth", "index": 0, "turns": [], "stop_reason": "no_answer"}
    put(tmp_path, {"r.yaml": RECIPE, "t.jsonl": lines(task()), "x.jsonl": lines(trajectory)})
    (tmp_path / "empty").mkdir()
    assert rewright("import", "x.jsonl", "--run", "empty", "--recipe", "r.yaml").code == 0


@pytest.mark.parametrize("left", [["environment.json.tmp"], ["environment.json", "recipe.yaml.tmp"]])
def test_a_folder_whose_run_was_killed_while_it_was_created_is_good_for_a_run(
    rewright: Rewright, tmp_path: Path, left: list[str]
) -> None:
    """Neither the same command nor --resume went on."""
    trajectory = {"id": "x", "task_id": "a", "stage": "synth", "index": 0, "turns": [], "stop_reason": "no_answer"}
    put(tmp_path, {"r.yaml": RECIPE, "t.jsonl": lines(task()), "x.jsonl": lines(trajectory)})
    put(tmp_path, {f"begun/{name}": b"{" for name in left})
    assert rewright("import", "x.jsonl", "--run", "begun", "--recipe", "r.yaml").code == 0
    assert not list((tmp_path / "begun").glob("*.tmp"))


def test_an_empty_recipe_runs_nothing(rewright: Rewright, tmp_path: Path) -> None:
    put(tmp_path, {"r.yaml": b"# later\n"})
    for more in ([], ["--seed", "1"], ["--dry-run"]):
        rewright("run", "r.yaml", *more).refused("r.yaml: is empty: expected a recipe with at least one key")
    assert not (tmp_path / "runs").exists()


NO_FILES = {"device": "/dev/zero", "pipe": "pipe"}


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "{}"],
        ["validate", "{}.jsonl"],
        ["run", "r.yaml", "--dry-run", "tasks.path={}.jsonl"],
        ["credit", "{}.jsonl"],
        ["credit", "gold.jsonl", "--gold", "{}.jsonl"],
        ["import", "{}", "--run", "new", "--recipe", "r.yaml"],
        ["import", "x.jsonl", "--run", "new", "--recipe", "{}"],
        ["index", "{}", "--out", "new"],
        ["index", "{}.gz", "--out", "new"],
    ],
    ids=" ".join,
)
def test_what_never_ends_is_no_file(rewright: Rewright, tmp_path: Path, kind: str, arguments: list[str]) -> None:
    put(
        tmp_path,
        {
            "r.yaml": RECIPE,
            "t.jsonl": lines(task()),
            "gold.jsonl": lines({"messages": [QUESTION, ANSWERED], "gold_calls": []}),
        },
    )
    for suffix in ("", ".jsonl", ".gz"):
        if kind == "pipe":
            os.mkfifo(tmp_path / f"never{suffix}")
        else:
            (tmp_path / f"never{suffix}").symlink_to("/dev/zero")
    rewright(*(one.format("never") for one in arguments)).refused(f": is a {kind}")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["view", "run", "--static", "pipe"],
        ["credit", "gold.jsonl", "--picture", "pipe.svg"],
        ["credit", "gold.jsonl", "--picture", "pipe.png"],
        ["export", "run", "out"],
    ],
    ids=" ".join,
)
def test_a_device_or_a_pipe_is_not_replaced_by_a_file(rewright: Rewright, tmp_path: Path, arguments: list[str]) -> None:
    row = {"messages": [QUESTION, {"role": "assistant", "content": "Rome"}], "tools": []}
    put(
        tmp_path,
        {
            "run/recipe.yaml": RECIPE,
            "run/sft.jsonl": lines(row),
            "gold.jsonl": lines({"messages": [QUESTION, ANSWERED], "gold_calls": [{"name": "find", "arguments": {}}]}),
        },
    )
    pipes = [tmp_path / name for name in ("pipe", "pipe.svg", "pipe.png", "out/sft.jsonl")]
    for pipe in pipes:
        pipe.parent.mkdir(exist_ok=True)
        os.mkfifo(pipe)
    rewright(*arguments).refused(": is a pipe: expected a file")
    assert all(pipe.is_fifo() for pipe in pipes)


def test_files_of_a_run_are_files(rewright: Rewright, tmp_path: Path) -> None:
    for name in ("state.json", "trajectories.jsonl", "recipe.yaml", "metrics.jsonl"):
        put(tmp_path, {f"run-{name}/recipe.yaml": b"stages: [judge]\n"})
        (tmp_path / f"run-{name}" / name).unlink(missing_ok=True)
        os.mkfifo(tmp_path / f"run-{name}" / name)
        rewright("judge" if name != "metrics.jsonl" else "report", f"run-{name}").refused(": is a pipe")


def test_a_file_larger_than_any_is_not_read_to_its_end(rewright: Rewright, tmp_path: Path) -> None:
    for name in ("r.yaml", "t.jsonl"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(10**12)  # takes no space
    rewright("run", "r.yaml").refused("r.yaml: is larger than 10,000,000 bytes")
    rewright("validate", "t.jsonl").refused("t.jsonl:1: a line of more than 268,435,456 bytes")


@pytest.mark.parametrize("role", ["usr", "", "User", "function", "tool_call"])
def test_a_message_is_of_somebody_known(rewright: Rewright, tmp_path: Path, role: str) -> None:
    said = f"the role {role!r}, expected one of system, developer, user, assistant, tool"
    odd = {"role": role, "content": "hello"}
    put(tmp_path, {"r.yaml": RECIPE, "t.jsonl": lines(task(messages=[QUESTION, odd]))})
    rewright("run", "r.yaml", "--dry-run").refused(f"t.jsonl:1: 'messages'[1] has {said}")
    put(tmp_path, {"t.jsonl": lines(task(follow_ups=[{"messages": [odd]}]))})
    rewright("run", "r.yaml", "--dry-run").refused(f"t.jsonl:1: 'follow_ups'[0].messages[0] has {said}")


def test_an_id_twice_in_a_corpus(rewright: Rewright, tmp_path: Path) -> None:
    rows = [{"id": "1", "contents": "a town"}, {"id": "2", "contents": "a lake"}, {"id": 1, "contents": "a hill"}]
    for name, content in (("c.jsonl", lines(*rows)), ("c.jsonl.gz", gzip.compress(lines(*rows)))):
        put(tmp_path, {name: content})
        rewright("index", name, "--out", "out").refused(f"{name}:3: the id '1' is already used in line 1")
    assert not (tmp_path / "out").exists()


def test_a_dry_run_finds_servers_and_indexes_that_are_none(rewright: Rewright, tmp_path: Path) -> None:
    put(tmp_path, {"r.yaml": RECIPE, "t.jsonl": lines(task()), "folder/x": b""})
    for setting, said in (
        ("model={path: m, engine: openai}", "model.base_url is missing: engine openai requires base_url"),
        ("model={path: m, engine: openai, base_url: 'localhost:8000'}", "model.base_url: base_url 'localhost:8000': "),
        ("tools.search=none", "none"),
        ("tools.search=folder", "folder"),
    ):
        rewright("run", "r.yaml", "--dry-run", setting).refused(said)


def test_the_last_line_of_a_dead_server_is_the_error(tmp_path: Path) -> None:
    model = b"{path: m, engine: openai, base_url: 'http://127.0.0.1:9/v1', attempts: 1}"
    put(tmp_path, {"r.yaml": RECIPE.replace(b"model: pico", b"model: " + model), "t.jsonl": lines(task())})
    command = [sys.executable, "-c", PROGRAM, "run", "r.yaml", "sandbox=process"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "127.0.0.1:9" in done.stderr.splitlines()[-1]
    assert "Unclosed" not in done.stderr


def test_a_page_that_cannot_be_made_leaves_nothing_behind(rewright: Rewright, tmp_path: Path) -> None:
    put(tmp_path, {"run/recipe.yaml": RECIPE, "run/trajectories.jsonl": b"{}\n"})
    rewright("view", "run", "--static", "page.html").refused("run/trajectories.jsonl:1: not a valid record")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["recipe.yaml", "trajectories.jsonl"]


@pytest.mark.parametrize("ignored", [False, True], ids=["a closed terminal", "nohup"])
def test_a_closed_terminal_stops_a_run_as_ctrl_c_does(
    rewright: Rewright, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignored: bool
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "hangup", raising=False)
    trajectory = {"id": "x", "task_id": "a", "stage": "synth", "index": 0, "turns": [], "stop_reason": "answered"}
    dimension = b"{name: a, function: 'hangup:f', weight: 1}"
    put(
        tmp_path,
        {
            "run/recipe.yaml": b"stages: [score]\nquality: {dimensions: [%b]}\n" % dimension,
            "run/trajectories.jsonl": lines(trajectory),
            "run/verdicts.jsonl": lines(
                {"trajectory_id": "x", "judge": "exact", "correct": True, "outcome": 1.0, "reason": ""}
            ),
            "hangup.py": b"import os\ndef f(sample):\n    os.kill(os.getpid(), 1)\n    return 1.0\n",
        },
    )
    signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    code, _, error = rewright("run", "run/recipe.yaml", "--run", "run", "--resume")
    if ignored:
        assert code == 0, error
        return
    assert code == 130, error
    assert "stopped; what was done is saved: go on with rewright run run --resume" in error
