"""What a later stage would refuse is said before the first token, in one line, and nothing is written."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from rewright.engines.pico import pico_path
from support import in_process

SCHEMA = {
    "type": "function",
    "function": {"name": "find", "parameters": {"type": "object", "properties": {"name": {"type": "string"}}}},
}
TOOL: dict[str, Any] = {"schema": SCHEMA, "source": "def find(name):\n    return 'Rome'\n"}
ALL = "synth, judge, score, repair, build, sft, eval_sft, reward, rl, eval_rl"


def task(name: str = "a", **changes: Any) -> dict[str, Any]:
    question = {"role": "user", "content": "Where does Ann live?"}
    return {"id": name, "messages": [question], "tools": [TOOL], "gold": {"answers": ["Rome"]}, **changes}


def put(folder: Path, recipe: str, **files: list[dict[str, Any]]) -> None:
    """A recipe over eight tasks, of which `recipe` changes what it names, and more task files by name."""
    base = {
        "tasks": "{format: rewright, path: t.jsonl}",
        "stages": f"[{ALL}]",
        "model": "pico",
        "repair": "{model: pico-repairer}",
        "sandbox": "{level: process, trusted: [mine]}",
        "eval": "{tasks: {format: rewright, path: t.jsonl}}",
    }
    base |= dict(line.split(": ", 1) for line in recipe.splitlines() if line)
    (folder / "r.yaml").write_text("".join(f"{key}: {value}\n" for key, value in base.items()))
    files = {"t": [task(str(number)) for number in range(8)], **files}
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "mine.py").write_text("def find(name):\n    return 'Rome'\n")


def saved_model(folder: Path, without: str = "") -> Path:
    """A copy of the pico model that lacks the files of that pattern."""
    shutil.copytree(pico_path("pico"), folder)
    for file in folder.glob(without) if without else ():
        file.unlink()
    return folder


SERVED = "{path: served, engine: openai, base_url: 'http://127.0.0.1:9/v1'%s}"

MISTAKES = {
    # A served policy.
    "token ids": (f"model: {SERVED % ''}", "model.tokenizer is missing: stage sft trains on token ids"),
    "token ids of the reward model": (
        f"model: {SERVED % ''}\nstages: [synth, judge, score, repair, build, reward]",
        "model.tokenizer is missing: stage reward trains on token ids",
    ),
    "weights": (
        "model: {path: ./served, engine: openai, base_url: 'http://127.0.0.1:9/v1', tokenizer: pico}",
        "model: model ./served: not a folder: expected a folder with a saved model, or a Hugging Face id (stage sft "
        "trains the weights",
    ),
    "weights for RL alone": (
        "model: {path: ./served, engine: openai, base_url: 'http://127.0.0.1:9/v1', tokenizer: pico}\nstages: [rl]",
        "(stage rl trains the weights",
    ),
    "no address": ("repair: {model: {path: m, engine: openai}}", "repair.model.base_url is missing"),
    "an address without scheme": (
        "repair: {model: {path: m, engine: openai, base_url: 'localhost:8000'}}",
        "r.yaml:4: repair.model.base_url: base_url 'localhost:8000': expected http://HOST:PORT/v1",
    ),
    "an API key": (
        "repair: {model: {path: m, engine: openai, base_url: 'http://h/v1', api_key_env: NO_SUCH_KEY}}",
        "repair.model.api_key_env is NO_SUCH_KEY: the environment variable is not set",
    ),
    "a tokenizer": (
        "repair: {model: {path: m, engine: openai, base_url: 'http://h/v1', mode: completions, tokenizer: ./none}}",
        "repair.model: model ./none: not a folder",
    ),
    # Models.
    "a folder": ("model: ./none", "model: model ./none: not a folder"),
    "a repairer": ("repair: {model: ./none}", "repair.model: model ./none: not a folder"),
    "no id": ("model: not/an id", "model: model not/an id: no such folder here, and not found as a Hugging Face id"),
    # Tasks.
    "tasks": ("tasks: {format: rewright, path: none.jsonl}", "none.jsonl: no such file"),
    "tasks for RL": ("rl: {tasks: {format: rewright, path: none.jsonl}}", "none.jsonl: no such file"),
    "held-out tasks": ("eval: {tasks: {format: rewright, path: none.jsonl}}", "none.jsonl: no such file"),
    "a parquet file": ("eval: {tasks: {format: ftrl, path: none.parquet}}", "none.parquet: no such file"),
    "a split": ("eval: {tasks: {format: town, split: none}}", "split"),
    "a corpus": ("tools: {search: none}", "none is not a search index"),
    # What stages need of one another.
    "a stage": ("stages: [synth, eval_sft]", "stage eval_sft needs stage sft, which is not done and not among the st"),
    "candidates": ("stages: [eval_base, judge]", "stage judge needs stage synth, which is not done"),
    "pairs": (
        "build: {held_out_fraction: 0}\nreward: {url: 'http://127.0.0.1:9'}",
        "build.held_out_fraction is 0: RL uses the model at reward.url only after a test on held-out pairs",
    ),
    # The trainer.
    "an optimizer": ("sft: {arguments: {optim: none}}", "sft: TRL rejects these settings: none is not a valid"),
    "a strategy": ("reward: {arguments: {save_strategy: never}}", "reward: TRL rejects these settings: "),
    "an argument of rollouts": (
        "rl: {arguments: {temperature: 0.3}}",
        "rl.arguments: temperature has no effect, since Rewright generates the rollouts: expected rl.temperature",
    ),
    "an argument of advantages": (
        "rl: {arguments: {scale_rewards: none}}",
        "rl.arguments: scale_rewards has no effect",
    ),
    "a profile": ("sft: {source: demonstrations, profile: none}", "sft.profile: unknown world profile 'none'"),
    "equal attempts": (
        "repair: {attempts: 3}",
        "repair.attempts is 3, and repair.temperature 0, at which all attempts",
    ),
    "a ratio": (
        "rl: {arguments: {importance_sampling_level: none}}",
        "rl.arguments.importance_sampling_level is 'none': expected one of token, sequence",
    ),
}
TASKS = {
    "neither": ({"tools": [{"schema": SCHEMA}]}, "task b: tool find has neither source nor target: expected exactly"),
    "both": ({"tools": [{**TOOL, "target": "mine:find"}]}, "task b: tool find has both source and target"),
    "a kind": ({"tools": [{"schema": SCHEMA, "kind": "mcp"}]}, "task b: tool find: no executor for kind 'mcp'"),
    "a module": ({"tools": [{"schema": SCHEMA, "target": "mine.more:find"}]}, "there is no module mine.more"),
    "a function": ({"tools": [{"schema": SCHEMA, "target": "mine:fnd"}]}, "module mine defines no fnd"),
    "an untrusted module": (
        {"tools": [{"schema": SCHEMA, "target": "nowhere_at_all:find"}]},
        "there is no module nowhere_at_all",
    ),
    "a gold answer": ({"gold": {}}, "task b: judge exact needs gold.answers, and the task has none"),
    "empty gold answers": ({"gold": {"answers": ["", " "]}}, "needs gold.answers, and those of the task are empty"),
    "gold calls": ({"judge": "calls"}, "task b: judge calls needs gold.calls (an empty list: no call is right)"),
    "a comparison": (
        {"judge": "calls", "gold": {"calls": []}, "metadata": {"compare": [1]}},
        "task b: metadata.compare is [1]: expected settings of a comparison",
    ),
    "logged outcomes": (
        {"judge": "logged", "metadata": {"outcomes": {"t": "1.0"}}},
        "task b: metadata.outcomes: 't' has '1.0': expected a number",
    ),
    "a judge": ({"judge": "mine.judges:judge"}, "judge 'mine.judges:judge' is code, which runs only if you allow"),
}
WHERE = {
    "tasks": "tasks: {format: rewright, path: bad.jsonl}\nstages: [synth, judge]",
    "rl.tasks": "rl: {tasks: {format: rewright, path: bad.jsonl}, tasks_per_step: 2}",
    "eval.tasks": "eval: {tasks: {format: rewright, path: bad.jsonl}}",
}


def refused(folder: Path, words: str) -> None:
    """`run` says so, and nothing is written."""
    before = sorted(folder.rglob("*"))
    in_process.rewright(folder, "run", "r.yaml").refused(words)
    assert [one for one in sorted(folder.rglob("*")) if "__pycache__" not in str(one)] == before


@pytest.mark.needs_torch
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_of_a_later_stage_is_said_before_the_first(tmp_path: Path, name: str) -> None:
    recipe, words = MISTAKES[name]
    put(tmp_path, recipe)
    refused(tmp_path, words)


@pytest.mark.needs_torch
@pytest.mark.parametrize(
    ("name", "where"), [(name, "tasks") for name in TASKS] + [(name, where) for where in WHERE for name in ("both",)]
)
def test_a_task_that_cannot_be_done_is_said_before_the_first_stage(tmp_path: Path, name: str, where: str) -> None:
    changes, words = TASKS[name]
    put(tmp_path, WHERE[where], bad=[task("c"), task("b", **changes)])
    refused(tmp_path, words)


@pytest.mark.needs_torch
def test_copies_of_a_greedy_trajectory_are_said(tmp_path: Path) -> None:
    """Also where only a stage that evaluates a trained model has them; not of a server, which may answer otherwise."""

    def said(recipe: str) -> list[str]:
        put(tmp_path, recipe)
        done = in_process.rewright(tmp_path, "run", "r.yaml", "--dry-run")
        assert done.code == 0, done.errors
        return [line.partition(": the traj")[0] for line in done.errors.splitlines() if "copies of one" in line]

    evaluated = "{tasks: {format: rewright, path: t.jsonl}, n: 4, temperature: 0}"
    both = ["warning: synth.n is 2, and synth.temperature 0", "warning: eval.n is 4, and eval.temperature 0"]
    assert said(f"synth: {{temperature: 0}}\neval: {evaluated}") == both
    assert said("synth: {temperature: 0, n: 1}\neval: {n: 4, tasks: {format: rewright, path: t.jsonl}}") == []
    served = f"model: {SERVED % ', tokenizer: pico'}\nsynth: {{temperature: 0}}\neval: {evaluated}\nstages: "
    assert said(f"{served}[synth, judge]") == said(f"{served}[eval_base]") == []
    assert said("synth: {temperature: 0}\nstages: [eval_base]") == []


@pytest.mark.needs_torch
def test_a_dry_run_says_the_same(tmp_path: Path) -> None:
    put(tmp_path, WHERE["rl.tasks"], bad=[task("c"), task("b", gold={})])
    in_process.rewright(tmp_path, "run", "r.yaml", "--dry-run").refused("task b: judge exact needs gold.answers")


def test_a_module_in_the_current_directory_must_be_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The command line appends the current directory, here of all tests of this process.
    monkeypatch.setattr("sys.path", [path for path in sys.path if not Path(path).is_relative_to(tmp_path.parent)])
    target = task(tools=[{"schema": SCHEMA, "target": "mine:find"}])
    put(tmp_path, "sandbox: {level: process}\nstages: [synth]", t=[target])
    refused(tmp_path, "target 'mine:find' is in the current directory, which the sandbox does not see: expected mine")
    said = in_process.rewright(tmp_path, "run", "r.yaml", "--dry-run", "sandbox.trusted=[mine]")
    assert said.code == 0, said.errors


@pytest.mark.needs_torch
@pytest.mark.parametrize(
    ("without", "words"),
    [
        ("*", "no saved model in it: expected a tokenizer and config.json"),
        ("model*", "no weights in it: expected model.safetensors"),
        ("config.json", "no config.json in it"),
        ("tokenizer*", "no tokenizer in it: expected tokenizer.json"),
        ("chat_template*", "has no chat template: expected a chat or instruct model"),
    ],
)
def test_a_model_that_is_not_whole_is_said_before_the_first_stage(tmp_path: Path, without: str, words: str) -> None:
    saved_model(tmp_path / "mine", without)
    for recipe in ("model: ./mine", "repair: {model: ./mine}"):
        put(tmp_path, recipe)
        refused(tmp_path, words)


@pytest.mark.needs_torch
def test_a_part_of_the_weights_that_was_not_downloaded_is_said(tmp_path: Path) -> None:
    folder = saved_model(tmp_path / "mine", "model*")
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    put(tmp_path, "model: ./mine")
    refused(tmp_path, "1 of 2 parts of its weights are missing, the first: model-00002-of-00002.safetensors")


@pytest.mark.needs_torch
def test_layers_that_the_engine_does_not_run_are_said_for_training_too(tmp_path: Path) -> None:
    """A served model may have them, but RL and the evaluations after training generate in this process."""
    folder = saved_model(tmp_path / "mine")
    config = json.loads((folder / "config.json").read_text())
    config |= {"layer_types": ["sliding_attention"] * config["num_hidden_layers"]}
    (folder / "config.json").write_text(json.dumps(config))
    put(
        tmp_path,
        "model: {path: ./mine, engine: openai, base_url: 'http://127.0.0.1:9/v1', tokenizer: ./mine}",
    )
    refused(tmp_path, "engine hf cannot run ./mine: its layers are sliding_attention")


@pytest.mark.needs_torch
def test_a_disk_that_cannot_take_the_models_is_said(tmp_path: Path) -> None:
    folder = saved_model(tmp_path / "mine")
    os.truncate(folder / "model.safetensors", shutil.disk_usage(tmp_path).free // 2)  # takes no room
    put(tmp_path, "model: ./mine")
    refused(tmp_path, "the models of sft, reward, rl take at least ")


@pytest.mark.needs_torch
def test_a_run_that_is_continued_needs_what_its_other_stages_need(tmp_path: Path) -> None:
    """The files of the stages that are done are no longer asked for."""
    put(tmp_path, "stages: [synth, judge]", t=[task()])
    assert in_process.rewright(tmp_path, "run", "r.yaml", "--run", "mine", "synth.n=1").code == 0
    (tmp_path / "mine.py").unlink()
    (tmp_path / "t.jsonl").unlink()
    said = in_process.rewright(tmp_path, "run", "r.yaml", "--run", "mine", "synth.n=1", "--resume")
    assert said.code == 0, said.errors
    state = json.loads((tmp_path / "mine/state.json").read_text())
    del state["judge"]
    (tmp_path / "mine/state.json").write_text(json.dumps(state))
    in_process.rewright(tmp_path, "run", "r.yaml", "--run", "mine", "synth.n=1", "--resume").refused("no such file")


def test_validate_says_which_tool_cannot_be_called(tmp_path: Path) -> None:
    for name in ("neither", "both", "a module", "a function", "an untrusted module"):
        changes, words = TASKS[name]
        put(tmp_path, "", bad=[task(**changes)])
        said = in_process.rewright(
            tmp_path, "validate", "bad.jsonl", "--level", "process", "--trusted", "mine", "--json"
        )
        assert said.code == 1
        assert words.removeprefix("task b: ") in said.errors
        assert json.loads(said.output)["errors"] == 1
