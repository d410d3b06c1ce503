"""examples/verl as far as it goes without a GPU: data, reward, and (with verl installed) tools and configuration."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "verl"


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_data_has_verl_s_columns_and_gold_calls_as_text(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    subprocess.run([sys.executable, FOLDER / "prepare_data.py", tmp_path], check=True, capture_output=True)
    train, test = (parquet.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in ("train", "test"))
    assert (len(train), len(test)) == (9, 3)
    for row in train + test:
        assert set(row) == {"data_source", "agent_name", "prompt", "ability", "reward_model", "extra_info"}
        assert row["agent_name"] == "rewright_tool_agent"
        calls = json.loads(row["extra_info"]["gold_calls"])
        assert [call["name"] for call in calls] == ["lookup_age", "lookup_age", "add"]
        assert int(row["reward_model"]["ground_truth"]) == sum(calls[2]["arguments"].values())


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("77", 1.0),
        ("<|im_start|>user\n41<|im_end|>\n<|im_start|>assistant\nTogether they are 77.<|im_end|>", 1.0),
        ("<tool_call>77</tool_call><|im_end|>\n<|im_start|>user\n77<|im_end|>\n<|im_start|>assistant\nI give up.", 0.0),
        ("77 or 78", 0.0),
        ("", 0.0),
    ],
)
def test_the_reward_reads_the_last_turn_only(response, score):
    assert load("reward").compute_score("ages", response, "77", extra_info={}) == score


def test_verl_resolves_the_run_script_s_configuration(tmp_path):
    pytest.importorskip("verl", reason="verl is not on the path: `make tests` runs this with it (docs/plugins.md)")
    yaml = pytest.importorskip("yaml")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", FOLDER / "run.sh", "--cfg", "job", "--resolve"],
        env=os.environ | {"PATH": path, "DATA": str(tmp_path)},
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    job = yaml.safe_load(done.stdout[done.stdout.index("actor_rollout_ref:") :])
    assert job["algorithm"]["adv_estimator"] == "rewright"
    assert job["algorithm"]["rewright"] == {"singleton_turn": "zero"}
    assert job["trainer"]["use_v1"] is True
    assert job["actor_rollout_ref"]["rollout"]["agent"]["agent_loop_config_path"].endswith("agent_loop.yaml")
    assert job["ray_kwargs"]["ray_init"]["runtime_env"]["env_vars"] == {
        "VERL_USE_EXTERNAL_MODULES": "rewright.integrations.verl"
    }


def test_the_run_script_stops_at_a_wrong_setting_before_verl_starts(tmp_path):
    pytest.importorskip("verl", reason="verl is not on the path: `make tests` runs this with it (docs/plugins.md)")
    subprocess.run([sys.executable, FOLDER / "prepare_data.py", tmp_path], check=True, capture_output=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", FOLDER / "run.sh", "+algorithm.rewright.gama=1"],
        env=os.environ | {"PATH": path, "DATA": str(tmp_path)},
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stderr.splitlines()[-1].startswith("rewright: algorithm.rewright: turn credit settings: ")
    assert {path.name for path in tmp_path.iterdir()} == {"train.parquet", "test.parquet"}


def test_verl_loads_the_tools_and_the_agent_loop():
    pytest.importorskip("verl", reason="verl is not on the path: `make tests` runs this with it (docs/plugins.md)")
    import hydra
    from omegaconf import OmegaConf
    from verl.tools.function_tool import load_function_tools_from_path

    tools = load_function_tools_from_path(str(FOLDER / "tools.py"))
    assert {tool.name for tool in (tools.values() if isinstance(tools, dict) else tools)} == {"lookup_age", "add"}
    (entry,) = OmegaConf.load(FOLDER / "agent_loop.yaml")
    assert entry.name == "rewright_tool_agent"
    assert hydra.utils.get_class(entry._target_).__name__ == "TurnCreditToolAgentLoop"
