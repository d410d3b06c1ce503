"""Every mistake that a person makes at the command line: one line, what and where, exit code 2, no traceback."""

from __future__ import annotations

import ctypes
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rewright.cli import main as cli
from rewright.engines.pico import pico_path
from rewright.pipeline.run_directory import Run

SCHEMA: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
}
ENDLESS = {"type": "object", "properties": {"name": {"type": "string", "pattern": "^(a+)+$"}}}
QUESTION = {"role": "user", "content": "Where does Ann live?"}


def task(**changes: Any) -> dict[str, Any]:
    return {
        "id": "a",
        "messages": [QUESTION],
        "tools": [{"schema": SCHEMA, "source": "def find(name):\n    return 'Rome'\n"}],
        "gold": {"answers": ["Rome"]},
        **changes,
    }


def lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def called(tool: str, /, **arguments: Any) -> dict[str, Any]:
    return {"calls": [{"name": tool, "arguments": arguments}]}


ANSWERED = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "find", "arguments": "{}"}}]}
RECIPE = b"tasks: {format: rewright, path: t.jsonl}\nstages: [synth]\nmodel: pico\n"

NEW = ["--run", "new", "--recipe", "done/recipe.yaml"]

Case = tuple[str, dict[str, bytes], list[str], str]

RECIPES: list[Case] = [
    ("no recipe", {}, ["run", "r.yaml"], "cannot read recipe r.yaml: No such file"),
    ("a directory", {"r.yaml/x": b""}, ["run", "r.yaml"], "cannot read recipe r.yaml: Is a directory"),
    ("not UTF-8", {"r.yaml": "name: café".encode("latin-1")}, ["run", "r.yaml"], "r.yaml: not a UTF-8 text file"),
    ("packed", {"r.yaml": gzip.compress(b"name: x")}, ["run", "r.yaml"], "r.yaml: not a UTF-8 text file"),
    ("a typo", {"r.yaml": b"seed: 1\nsynht:\n  n: 2\n"}, ["run", "r.yaml"], "r.yaml:2: unknown key synht: did you"),
    ("a wrong type", {"r.yaml": b"synth:\n  n: two\n"}, ["run", "r.yaml"], "r.yaml:2: synth.n: expected `int`"),
    ("a negative number", {"r.yaml": b"seed: -1\n"}, ["run", "r.yaml"], "r.yaml:1: seed: must not be negative"),
    ("an override", {"r.yaml": b""}, ["run", "r.yaml", "synth.n=-1"], "'synth.n=-1': synth.n: must be at least 1"),
    ("no path", {"r.yaml": b"tasks: {format: ftrl}"}, ["run", "r.yaml", "--dry-run"], "tasks.path is missing"),
    ("a format", {"r.yaml": RECIPE}, ["run", "r.yaml", "tasks.format=frtl", "--dry-run"], "did you mean 'ftrl'?"),
    ("a dialect", {"r.yaml": RECIPE + b"dialect: hermse\n", "t.jsonl": lines(task())}, ["run", "r.yaml"], "hermse"),
    ("a model", {"r.yaml": RECIPE, "t.jsonl": lines(task())}, ["run", "r.yaml", "--model", "./none"], "./none: not a"),
    (
        "a home of nobody",
        {"r.yaml": RECIPE, "t.jsonl": lines(task())},
        ["run", "r.yaml", "--model", "~no-such-user/m"],
        "model ~no-such-user/m: not a folder: expected a folder",
    ),
    ("a path for a world", {"r.yaml": b""}, ["run", "r.yaml", "tasks=t.jsonl", "tasks.format=town"], "makes its tasks"),
    (
        "an argument",
        {"r.yaml": b"rl: {arguments: {lr: 1}}"},
        ["run", "r.yaml"],
        "rl.arguments: TRL's GRPOConfig has no",
    ),
    (
        "a scheduler",
        {"r.yaml": b"sft: {scheduler: cos}"},
        ["run", "r.yaml"],
        "sft.scheduler: invalid enum value 'cos': expected one of",
    ),
    (
        "a loss",
        {"r.yaml": b"rl: {loss_type: ppo}"},
        ["run", "r.yaml"],
        "rl.loss_type: invalid enum value 'ppo': expected one of grpo,",
    ),
    ("a logger", {"r.yaml": b"rl: {report_to: [wandbb]}"}, ["run", "r.yaml", "--dry-run"], "rl.report_to is 'wandbb'"),
    ("no logger", {"r.yaml": b"sft: {report_to: [neptune]}"}, ["run", "r.yaml"], "sft.report_to: neptune is not inst"),
    (
        "parts",
        {"r.yaml": b"sft: {micro_batch_size: 3}"},
        ["run", "r.yaml"],
        "sft.micro_batch_size is 3: expected a divis",
    ),
    (
        "updates",
        {"r.yaml": b"rl: {updates_per_step: 7}"},
        ["run", "r.yaml"],
        "rl.updates_per_step is 7: expected a divi",
    ),
    (
        "other words",
        {"r.yaml": b"dialect: tags\nsft: {source: demonstrations}"},
        ["run", "r.yaml"],
        "sft.source is demo",
    ),
    ("no limit", {"r.yaml": b""}, ["run", "r.yaml", "--limit", "0"], "--limit is 0: expected at least 1"),
    (
        "a dimension",
        {"r.yaml": b"quality: {dimensions: [{name: a, function: 'b:c', weight: 1}]}"},
        ["run", "r.yaml", "--dry-run"],
        "quality.dimensions: dimension a 'b:c': No module named 'b'",
    ),
    (
        "a dimension that ends the program",
        {
            "r.yaml": b"quality: {dimensions: [{name: a, function: 'ends:c', weight: 1}]}",
            "ends.py": b"raise SystemExit(3)",
        },
        ["run", "r.yaml", "--dry-run"],
        "quality.dimensions: dimension a 'ends:c': SystemExit: 3",
    ),
    (
        "an estimator that ends the program",
        {"r.yaml": b"rl: {credit: {estimator: 'ends_too:c'}}", "ends_too.py": b"raise SystemExit(3)"},
        ["run", "r.yaml", "--dry-run"],
        "estimator 'ends_too:c': SystemExit: 3",
    ),
    (
        "a number of tasks",
        {"r.yaml": b"tasks: {format: reasoning_gym, path: 'leg_counting:\xc2\xb2'}"},
        ["run", "r.yaml"],
        "leg_counting:\u00b2: expected <set>, <set>:<number",
    ),
    (
        "a folder without a model",
        {"r.yaml": RECIPE, "t.jsonl": lines(task()), "empty/x": b""},
        ["run", "r.yaml", "--model", "empty"],
        "model empty: no saved model in it: expected a tokenizer and config.json",
    ),
    (
        "weights of nothing",
        {"r.yaml": b"quality: {dimensions: [{name: a, function: length}]}"},
        ["run", "r.yaml", "--dry-run"],
        "quality.dimensions: the weights sum to 0, expected a positive sum",
    ),
    (
        "an estimator",
        {"r.yaml": b"rl: {credit: {estimator: grop}}"},
        ["run", "r.yaml", "--dry-run"],
        "rl.credit: unknown estimator 'grop': did you mean 'grpo'? expected one of delta, ",
    ),
    (
        "a run in a file",
        {"r.yaml": b"seed: 0\n", "file": b""},
        ["run", "r.yaml", "--run", "file"],
        "run directory file: File ex",
    ),
    (
        "a run below a file",
        {"r.yaml": b"seed: 0\n", "file": b""},
        ["run", "r.yaml", "--run", "file/x"],
        "file/x: Not a directory",
    ),
    (
        "a stage that lacks what it reads",
        {"r.yaml": b"stages: [score]\n"},
        ["run", "r.yaml"],
        "runs/run: stage score needs stage synth, which is not done and not among the stages before it",
    ),
]

TASKS: list[tuple[str, str, bytes, str]] = [
    ("empty", "t.jsonl", b"", "t.jsonl: has no rows"),
    ("not JSON", "t.jsonl", lines(task()) + b"{oops\n", "t.jsonl:2: not JSON"),
    ("not UTF-8", "t.jsonl", '{"id": "caf\xe9"}\n'.encode("latin-1"), "t.jsonl:1: not UTF-8"),
    ("UTF-16", "t.jsonl", json.dumps(task()).encode("utf-16"), "t.jsonl:1: not "),
    ("not packed", "t.jsonl.gz", lines(task()), "t.jsonl.gz: not a whole gzip file"),
    ("cut", "t.jsonl.gz", gzip.compress(lines(*[task(id=str(i)) for i in range(99)]))[:-20], "not a whole gzip file"),
    ("damaged", "t.jsonl.gz", gzip.compress(lines(task()))[:12] + b"\xff" * 40, "not a whole gzip file"),
    ("zstd", "t.jsonl.zst", b"\x28\xb5\x2f\xfd", "t.jsonl.zst: unknown kind of file"),
    ("a recipe", "r.yaml", b"name: x\n", "(a recipe is checked by: rewright run r.yaml --dry-run)"),
    ("a table", "t.csv", b"id,question\n1,x\n", "t.csv: unknown kind of file"),
    ("parquet in name only", "t.parquet", b"PAR1", "t.parquet: not a parquet file"),
    ("not a record", "t.jsonl", b"[1, 2]\n", "t.jsonl:1: is a list, expected an object"),
    ("no messages", "t.jsonl", lines({"id": "a"}), "t.jsonl:1: Object missing required field `messages`"),
    ("a wrong type", "t.jsonl", lines(task(id=3)), "t.jsonl:1: Expected `str`, got `int` at `id`"),
    ("a typo", "t.jsonl", lines(task(), task(id="b", jugde="math")), "t.jsonl:2: unknown key 'jugde'; did you mean"),
    ("an id twice", "t.jsonl", lines(task(), task()), "t.jsonl:2: the id 'a' is already used by t.jsonl:1"),
    ("no schema", "t.jsonl", lines(task(tools=[{"source": "x"}])), "t.jsonl:1: Object missing required field `schema`"),
    ("a schema of nothing", "t.jsonl", lines(task(tools=[{"schema": {}}])), "t.jsonl:1: 'tools'[0].schema is no"),
    ("a bare schema", "t.jsonl", lines(task(tools=[{"schema": {"name": "f"}}])), "t.jsonl:1: 'tools'[0].schema is no"),
    (
        "halves of characters",
        "t.jsonl",
        lines(task(id="a\ud800"), task(id="a\ud801")),
        "t.jsonl:2: the id 'a\ufffd' is already used by t.jsonl:1",
    ),
    ("an unknown tool", "t.jsonl", lines(task(gold=called("fnd"))), "t.jsonl:1: gold call 0 is to the unknown tool"),
    ("against the schema", "t.jsonl", lines(task(gold=called("find", name=3))), "t.jsonl:1: gold call 0 to 'find'"),
    ("no argument", "t.jsonl", lines(task(gold=called("find"))), "'name' is a required property"),
    ("nested", "t.jsonl", b"[" * 100_000 + b"\n", "t.jsonl:1: JSON nested too deeply"),
    (
        "nested, but not without end",
        "t.jsonl",
        lines(task(metadata={"a": json.loads("[" * 200 + "]" * 200)})),
        "t.jsonl:1: JSON nested too deeply (more than 100 levels)",
    ),
    ("nothing said", "t.jsonl", lines(task(messages=[{"role": "user"}])), "t.jsonl:1: 'messages'[0] has no content"),
    (
        "no text",
        "t.jsonl",
        lines(task(messages=[{"role": "user", "content": 3}])),
        "'messages'[0] has content of the type int, expected a text",
    ),
    ("a judge", "t.jsonl", lines(task(judge="maht")), "t.jsonl:1: unknown judge 'maht': did you mean 'math'? expected"),
    (
        "a judge that is code",
        "t.jsonl",
        lines(task(judge="shutil:rmtree")),
        "t.jsonl:1: judge 'shutil:rmtree' is code, which runs only if you allow its package: expected shutil in",
    ),
    (
        "a pattern without end",
        "t.jsonl",
        lines(
            task(
                tools=[{"schema": {**SCHEMA, "function": {**SCHEMA["function"], "parameters": ENDLESS}}, "source": ""}],
                gold=called("find", name="a" * 60 + "b"),
            )
        ),
        "t.jsonl:1: gold call 0 to 'find': could not be checked against the schema: comparing takes more than 3 s",
    ),
    ("a name too long", "t" * 300 + ".jsonl", b"", "File name too long"),
]

CREDIT: list[tuple[str, bytes, str]] = [
    ("empty", b"", "log.jsonl: has no rows"),
    ("nothing known", lines({"text": "x"}), "log.jsonl:1: not a log that is known"),
    ("no gold calls", lines({"messages": [QUESTION, ANSWERED]}), "no trajectory has gold calls"),
    ("gold of no kind", lines({"messages": [QUESTION, ANSWERED], "gold_calls": 3}), "log.jsonl:1: gold_calls is 3"),
    (
        "a gold call without a name",
        lines({"messages": [QUESTION, ANSWERED], "gold_calls": [{"nam": "find", "arguments": {}}]}),
        "log.jsonl:1: gold_calls: call 0 is {'nam': 'find', 'arguments': {}}: expected a name, and arguments",
    ),
    (
        "gold arguments of no kind",
        lines({"messages": [QUESTION, ANSWERED], "gold_calls": [{"name": "find", "arguments": [1]}]}),
        "log.jsonl:1: gold_calls: call 0 is {'name': 'find', 'arguments': [1]}: expected a name, and arguments",
    ),
    (
        "gold nested too deeply",
        lines({"messages": [QUESTION, ANSWERED], "gold_calls": "[" * 100_000}),
        "log.jsonl:1: gold_calls is not JSON",
    ),
    (
        "an outcome of text",
        lines({"messages": [QUESTION, ANSWERED], "gold_calls": [], "reward": "good"}),
        "log.jsonl:1: the outcome 'good' is not a number",
    ),
    ("a column", lines({"messages": [QUESTION, ANSWERED], "gold_calls": []}), "no row has the column 'good'"),
    (
        "calls of no kind",
        lines({"messages": [{"role": "assistant", "tool_calls": 5}]}),
        "log.jsonl:1: a call of turn 0 is 5: expected name and arguments",
    ),
    (
        "an outcome without end",
        b'{"task_id": "a", "messages": [{"role": "assistant", "content": ""}], "gold_calls": [], "reward": 1e999}\n',
        "log.jsonl:1: the outcome inf is not a finite number",
    ),
]


@pytest.fixture
def rewright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Run the command in `tmp_path`; returns exit code and standard error."""
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGHUP)]
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[Any, str]:
        monkeypatch.setattr(sys, "argv", ["rewright", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code, capsys.readouterr().err

    yield run
    for number, handler in handlers:
        signal.signal(number, handler)


def refused(result: tuple[Any, str], said: str) -> None:
    code, error = result
    complaint = error.splitlines()[-1]
    assert complaint.startswith("error: ")
    assert said in complaint
    assert "Traceback" not in error
    assert code == 2


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(("files", "arguments", "said"), [case[1:] for case in RECIPES], ids=[c[0] for c in RECIPES])
def test_recipes_and_flags(
    rewright: Callable[..., tuple[Any, str]], tmp_path: Path, files: dict[str, bytes], arguments: list[str], said: str
) -> None:
    put(tmp_path, files)
    refused(rewright(*arguments), said)


@pytest.mark.parametrize(("name", "content", "said"), [case[1:] for case in TASKS], ids=[case[0] for case in TASKS])
def test_task_files(
    rewright: Callable[..., tuple[Any, str]], tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    put(tmp_path, {"r.yaml": RECIPE, **({name: content} if len(name) < 250 else {})})
    refused(rewright("run", "r.yaml", f"tasks.path={name}"), said)
    assert not (tmp_path / "runs/run/trajectories.jsonl").exists()


@pytest.mark.parametrize(("content", "said"), [case[1:] for case in CREDIT], ids=[case[0] for case in CREDIT])
def test_logs_for_credit(rewright: Callable[..., tuple[Any, str]], tmp_path: Path, content: bytes, said: str) -> None:
    put(tmp_path, {"log.jsonl": content})
    column = ["--outcome", "good"] if "column" in said else []
    refused(rewright("credit", "log.jsonl", *column), said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no command: expected one of those above"),
        (["runn", "r.yaml"], "No such command 'runn'"),
        (["credit", "gold.jsonl", "--trajectory", "x"], "--trajectory needs --picture"),
        (["export", "sets", "out"], "sets/sft.jsonl:2: not a row of this file: Expected `object`, got `int` - at"),
        (["sft", "sets"], "sets/sft.jsonl has no token ids: expected model.tokenizer in the recipe"),
        (["sft", "tokens"], "tokens/sft.jsonl:2: expected input_ids and a mask of their length"),
        (
            ["reward", "pairs"],
            "pairs/preferences.jsonl:1: not a row of this file: Object missing required field `split`",
        ),
        (["reward", "tokens"], "tokens/preferences.jsonl has pairs without token ids: expected"),
        (
            ["export", "pairs", "out"],
            "pairs/preferences.jsonl:1: not a row of this file: Object missing required field",
        ),
        (["judge"], "Missing argument"),
        (["schema"], "Missing argument 'task|recipe|trajectory'"),
        (["judge", "nowhere"], "nowhere is not a run directory"),
        (["quickstart", "--limit", "0"], "--limit is 0"),
        (["quickstart", "--limit", "many"], "--limit"),
        (["eval", "done", "--model", "bse"], "--model is 'bse': expected base, sft, dpo or rl"),
        (["score", "done"], "run rewright judge done first"),
        (["validate", "none.jsonl"], "none.jsonl: no such file"),
        (["validate", "."], "is a directory, expected"),
        (["credit", "."], "has no trajectories.jsonl"),
        (["credit", "done"], "no trajectory has gold calls"),
        (["import", "none.jsonl", *NEW], "none.jsonl: no such file"),
        (["import", "text.jsonl", *NEW], "text.jsonl:1: not JSON"),
        (["import", "other.jsonl", *NEW], "other.jsonl:1: unknown task"),
        (
            ["import", "twice.jsonl", *NEW],
            "twice.jsonl:2: the id 'x' is already used in line 1",
        ),
        (
            ["import", "empty.jsonl", *NEW],
            "empty.jsonl: has no rows",
        ),
        (
            ["import", "t.jsonl.gz", *NEW],
            "t.jsonl.gz: is compressed (gzip): decompress",
        ),
        (
            ["import", "deep.jsonl", *NEW],
            "deep.jsonl:1: JSON nested too deeply",
        ),
        (
            ["import", "done/trajectories.jsonl", "--run", "t.jsonl", "--recipe", "done/recipe.yaml"],
            "t.jsonl: File exists",
        ),
        (["validate", "t.jsonl", "--limit", "0"], "--limit"),
        (["view", "done", "--out", "done"], "cannot write done: Is a directory"),
        (["view", "done", "--out", "none/x.html"], "cannot write none/x.html: No such file or directory"),
        (["export", "done", "t.jsonl"], "cannot make t.jsonl: File exists"),
        (["credit", "gold.jsonl", "--picture", "done"], "done: unknown kind of picture, expected .svg or .png"),
        (["credit", "x" * 5000], "File name too long"),
        (["judge", "listed"], "listed/state.json: expected the stages of the run: Expected `object`, got `array`"),
        (["report", "odd"], "odd/state.json: expected the stages of the run: Expected `float`, got `str`"),
        (["report", "told"], "told/metrics.jsonl:2: not a row of metrics: Expected `float`, got `str` - at `$.low`"),
        (["report", "deep"], "deep/state.json: expected the stages of the run: "),
        (
            ["run", "done/recipe.yaml", "--run", "done"],
            "done already contains a run: choose another --run, or continue it: rewright run done --resume",
        ),
        (["run", "done/recipe.yaml", "seed=5", "--run", "done", "--resume"], "done was started with another recipe"),
    ],
)
def test_verbs_and_run_directories(
    rewright: Callable[..., tuple[Any, str]], tmp_path: Path, arguments: list[str], said: str
) -> None:
    recipe = b"tasks: {format: rewright, path: t.jsonl}\nstages: [judge, score]\n"
    nested = json.loads("[" * 200 + "]" * 200)
    trajectory = {"id": "x", "task_id": "a", "stage": "synth", "index": 0, "turns": [], "stop_reason": "no_answer"}
    put(
        tmp_path,
        {
            "done/recipe.yaml": recipe,
            "done/trajectories.jsonl": lines({"version": 1, **trajectory}),
            "t.jsonl": lines(task()),
            "text.jsonl": b"not a record\n",
            "other.jsonl": lines({"version": 1, **trajectory, "task_id": "z"}),
            "twice.jsonl": lines({"version": 1, **trajectory}, {"version": 1, **trajectory}),
            "empty.jsonl": b"",
            "t.jsonl.gz": gzip.compress(lines({"version": 1, **trajectory})),
            "deep.jsonl": lines(
                {**trajectory, "turns": [{"text": "", "calls": [{"name": "f", "arguments": {"a": nested}}]}]}
            ),
            "gold.jsonl": lines({"messages": [QUESTION, ANSWERED], "gold_calls": [{"name": "find", "arguments": {}}]}),
            "told/recipe.yaml": recipe,
            "told/metrics.jsonl": lines({"stage": "sft"}, {"stage": "eval_base", "success": 1, "low": "none"}),
            "listed/recipe.yaml": recipe,
            "listed/state.json": b"[]",
            "sets/recipe.yaml": recipe,
            "sets/sft.jsonl": lines({"messages": [QUESTION], "tools": []}, {"messages": [3], "tools": []}),
            "pairs/recipe.yaml": recipe,
            "pairs/preferences.jsonl": lines({"messages": [QUESTION], "tools": []}),
            "tokens/recipe.yaml": recipe,
            "tokens/sft.jsonl": lines({"input_ids": [5], "mask": [1]}, {"messages": [QUESTION], "tools": []}),
            "tokens/preferences.jsonl": lines({"split": "train", "matched_format": True, "chosen_ids": [5]}),
            "odd/recipe.yaml": recipe,
            "odd/state.json": b'{"judge": {"seconds": "long"}}',
            "deep/recipe.yaml": recipe,
            "deep/state.json": b"[" * 100_000,
        },
    )
    refused(rewright(*arguments), said)


def damaged_model(folder: Path) -> None:
    """A model that has all of its files, of which the weights are none: only loading it finds that."""
    shutil.copytree(pico_path("pico"), folder)
    (folder / "model.safetensors").write_bytes(b"none")


def test_a_run_that_a_mistake_stopped_at_once_is_no_run(
    rewright: Callable[..., tuple[Any, str]], tmp_path: Path
) -> None:
    """Mended, the same command works: the directory holds nothing but the recipe."""
    put(tmp_path, {"r.yaml": b"tasks: {path: t.jsonl}\nstages: [synth]\nmodel: ./damaged\n", "t.jsonl": lines(task())})
    damaged_model(tmp_path / "damaged")
    refused(rewright("run", "r.yaml"), "damaged: cannot load it")
    assert (tmp_path / "runs/run/recipe.yaml").exists()
    for arguments in (["model=./other"], ["model=./third", "--resume"]):
        refused(rewright("run", "r.yaml", *arguments), f"{arguments[0].removeprefix('model=')}: not a folder")
    (tmp_path / "runs/run/trajectories.jsonl").touch()
    refused(rewright("run", "r.yaml"), "already contains a run")


def test_a_second_process_is_refused_and_told_who_the_first_is(
    rewright: Callable[..., tuple[Any, str]], tmp_path: Path
) -> None:
    put(tmp_path, {"run/recipe.yaml": b"stages: [judge]\n"})
    with Run.open(tmp_path / "run").locked():
        for arguments in (["judge", "run"], ["run", "run/recipe.yaml", "--run", "run", "--resume"]):
            refused(rewright(*arguments), f"run is being written by process {os.getpid()}: wait for it or stop it")


def _bound_by_permissions() -> None:
    """Root may read everything: take the two capabilities that let it."""
    drop_from_bounding_set, capabilities = 24, (1, 2)  # prctl(2); CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    for capability in capabilities:
        ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0)


PROGRAM = "from rewright.cli.main import main; main()"


def test_an_import_with_a_mistake_leaves_no_half_of_a_run(
    rewright: Callable[..., tuple[Any, str]], tmp_path: Path
) -> None:
    trajectory = {"id": "x", "task_id": "a", "stage": "synth", "index": 0, "turns": [], "stop_reason": "no_answer"}
    put(tmp_path, {"r.yaml": RECIPE, "t.jsonl": lines(task()), "x.jsonl": lines(trajectory, {**trajectory, "id": 5})})
    refused(rewright("import", "x.jsonl", "--run", "new", "--recipe", "r.yaml"), "x.jsonl:2: not a valid record")
    assert not (tmp_path / "new").exists()
    call = {"name": "add", "arguments": {"a": 1}}
    for turn, key in (
        ({"text": "", "tool_calls": [call]}, "turns.0.tool_calls': expected one of text"),
        ({"text": "", "calls": [{**call, "args": {}}]}, "turns.0.calls.0.args': expected one of name, arguments"),
    ):  # dropped, they would be turns without a call
        put(tmp_path, {"x.jsonl": lines(trajectory, {**trajectory, "id": "y", "turns": [turn]})})
        said = f"x.jsonl:2: unknown key '{key}"
        refused(rewright("import", "x.jsonl", "--run", "new", "--recipe", "r.yaml"), said)
        assert not (tmp_path / "new").exists()
    put(tmp_path, {"x.jsonl": lines(trajectory)})
    assert rewright("import", "x.jsonl", "--run", "new", "--recipe", "r.yaml")[0] == 0
    assert [one.id for one in Run.open(tmp_path / "new").trajectories] == ["x"]
    assert [one.id for one in Run.open(tmp_path / "new").tasks] == ["a"]


def test_foreign_folders_beside_the_runs_are_no_runs(rewright: Callable[..., tuple[Any, str]], tmp_path: Path) -> None:
    for name in ("quickstart", "quickstart-3", "quickstart-1x", "quickstart-old"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    refused(rewright("quickstart", "--model", "./none"), "./none: not a folder")
    assert not (tmp_path / "runs/quickstart-4").exists()
    damaged_model(tmp_path / "damaged")
    refused(rewright("quickstart", "--model", "./damaged"), "damaged: cannot load it")
    assert (tmp_path / "runs/quickstart-4/recipe.yaml").exists()


def _without_namespaces() -> None:
    """A user namespace in which no further one can be made, as in most containers."""
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None).unshare(0x10000000) != 0:
        os._exit(77)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path(f"/proc/self/{name}").write_text(text)
    for name in ("user", "mnt"):
        Path(f"/proc/sys/user/max_{name}_namespaces").write_text("0")


def test_a_machine_without_namespaces_runs_nothing_unless_told_to(tmp_path: Path) -> None:
    put(tmp_path, {"r.yaml": RECIPE, "t.jsonl": lines(task())})
    command = [sys.executable, "-c", PROGRAM, "run", "r.yaml"]

    def run(*settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *settings], cwd=tmp_path, capture_output=True, text=True, check=False,
            preexec_fn=_without_namespaces,
        )  # fmt: skip

    refusal = run()
    if refusal.returncode == 77:
        pytest.skip("this machine has no user namespaces to take away")
    complaint = refusal.stderr.splitlines()[-1]
    assert complaint.startswith("error: nothing was executed: namespaces are not allowed here")
    assert "`rewright doctor` says what is missing" in complaint
    assert refusal.returncode == 1
    assert not (tmp_path / "runs/run/trajectories.jsonl").exists()
    told = run("sandbox=unsafe", "--run", "told", "synth.n=1", "limits.turns=1")
    assert told.returncode == 0, told.stderr
    (trajectory,) = Run.open(tmp_path / "told").trajectories
    assert trajectory.failure is None


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_what_standard_output_cannot_hold_is_escaped(tmp_path: Path, encoding: str) -> None:
    row = {"id": "caf\u00e9", "messages": [QUESTION, ANSWERED], "gold_calls": [], "reward": 1.0}
    put(tmp_path, {"gold.jsonl": lines(row, {**row, "id": "b"})})
    command = [sys.executable, "-c", PROGRAM, "credit", "gold.jsonl"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert {"ascii": b"caf\\xe9", "utf-8": "caf\u00e9".encode()}[encoding] in done.stdout
    closed = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], cwd=tmp_path, capture_output=True, check=False)
    assert (closed.returncode, closed.stderr) == (0, b"")


def test_a_full_disk_behind_standard_output(tmp_path: Path) -> None:
    put(tmp_path, {"gold.jsonl": lines({"messages": [QUESTION, ANSWERED], "gold_calls": []})})
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-c", PROGRAM, "credit", "gold.jsonl"]
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == "error: standard output or a file: No space left on device\n"
    assert done.returncode == 1


def test_no_permission(tmp_path: Path) -> None:
    put(tmp_path, {"r.yaml": RECIPE, "t.jsonl": lines(task()), "locked/t.jsonl": lines(task())})
    (tmp_path / "t.jsonl").chmod(0)
    (tmp_path / "locked").chmod(0)
    for path in ("t.jsonl", "locked/t.jsonl"):
        command = [sys.executable, "-c", PROGRAM, "run", "r.yaml", "--dry-run", f"tasks.path={path}"]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, preexec_fn=_bound_by_permissions
        )
        refused((done.returncode, done.stderr), f"{path}: cannot be read: Permission denied")
    put(tmp_path, {"done/recipe.yaml": RECIPE, "done/trajectories.jsonl": b"", "r.yaml": RECIPE})
    (tmp_path / "done").chmod(0o500)
    for arguments, said in (
        (["run", "r.yaml", "--run", "done/new"], "cannot make the run directory done/new: Permission denied"),
        (["run", "r.yaml", "--run", "locked/new"], "cannot look into the run directory locked/new: Permission denied"),
        (["judge", "done"], "cannot write done/.lock: Permission denied"),
        (["credit", "locked/t.jsonl"], "locked/t.jsonl: Permission denied"),
    ):
        command = [sys.executable, "-c", PROGRAM, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, preexec_fn=_bound_by_permissions
        )
        refused((done.returncode, done.stderr), said)
    (tmp_path / "locked").chmod(0o700)
    (tmp_path / "done").chmod(0o700)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "t.jsonl",
            '{"id": "t", "messages": [{"role": "us',
            "t.jsonl:1: not JSON: it ends inside a value: it may have",
        ),
        (
            "t.jsonl",
            '{"id": "t", "messages": [',
            "t.jsonl:1: not JSON: it ends inside a value: it may have been cut off",
        ),
        ("t.jsonl", '{"id": 1,}', "t.jsonl:1: not JSON: "),
        ("t.json", '[\n{"id": 1,\n "b" 2}]', "t.json: not JSON: expecting ':' delimiter at line 3, column 6"),
    ],
)
def test_broken_json_has_one_position(tmp_path: Path, name: str, text: str, words: str) -> None:
    from support.in_process import rewright

    (tmp_path / name).write_text(text)
    for command in (["credit", name], ["import", name, "--run", "run"], ["validate", name]):
        said = rewright(tmp_path, *command)
        lines = [line for line in (said.output + said.errors).splitlines() if line.startswith("error: ")]
        assert said.code in (1, 2) and len(lines) == 1, said
        assert f"error: {words}" in lines[0].replace("row 0: ", "")  # validate counts the rows too
        assert "(char" not in lines[0] and "line 1" not in lines[0]
