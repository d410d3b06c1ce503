"""RL with the embedded engine and with servers that take the trained weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from rewright.pipeline.run_directory import Run
from support import in_process
from support.served import served
from support.vllm_like_server import vllm_like_server

RECIPE = """\
name: engines
model: {path: pico, slots: 8}
stages: [rl]
tasks: {format: town, split: train, profile: short, count: 4}
limits: {turns: 3, turn_tokens: 48, trajectory_tokens: 200, tool_seconds: 600, trajectory_seconds: 3000}
sandbox: {level: process, wall_seconds: 600}
rl: {learning_rate: 1.0e-3, steps: 2, tasks_per_step: 2, generations: 2}
"""
FSDP = """\
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
num_machines: 1
num_processes: 2
use_cpu: true
fsdp_config:
  fsdp_version: 2
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_transformer_layer_cls_to_wrap: LlamaDecoderLayer
  fsdp_state_dict_type: FULL_STATE_DICT
"""
LOAD = ["/pause?mode=wait&clear_cache=true", "/collective_rpc", "/resume"]


def trained(folder: Path, *overrides: str) -> tuple[in_process.Said, Run]:
    (folder / "r.yaml").write_text(RECIPE)
    said = in_process.rewright(folder, "run", "r.yaml", "--run", "run", *overrides)
    return said, Run(folder / "run")


def rows_of(run: Run) -> list[dict[str, Any]]:
    return [row for row in run.metrics() if row["stage"] == "rl"]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    said, run = trained(tmp_path_factory.mktemp("embedded"))
    assert said.code == 0, said.errors
    return run


def test_every_turn_says_which_weights_made_it_and_the_gap_is_logged(embedded: Run) -> None:
    rollouts = list(embedded.rollouts)
    versions = {(int(one.id.split("/")[-2]), turn.weights_version) for one in rollouts for turn in one.turns}
    assert versions == {(0, 0), (1, 1)}
    rows = rows_of(embedded)
    assert [(row["rewright/sampler_gap_mean"], row["rewright/sampler_gap_max"]) for row in rows] == [(0.0, 0.0)] * 2
    assert not [name for row in rows for name in row if name.startswith("sampling/")]  # no correction: the gap is 0


def test_servers_get_the_weights_of_every_step_and_train_as_the_embedded_engine(embedded: Run, tmp_path: Path) -> None:
    first: list[str] = []
    second: list[str] = []
    with (
        served(lambda: vllm_like_server("pico", first)) as one,
        served(lambda: vllm_like_server("pico", second)) as two,
    ):
        said, run = trained(tmp_path, "rl.engine=server", f"rl.server.base_url=[{one}/v1, {two}/v1]")
        assert said.code == 0, said.errors
    assert first == second == LOAD * 2
    pairs = list(zip(embedded.rollouts, run.rollouts, strict=True))
    assert [[turn.token_ids for turn in left.turns] for left, _ in pairs] == [
        [turn.token_ids for turn in right.turns] for _, right in pairs
    ]
    assert {turn.weights_version for _, right in pairs for turn in right.turns} == {0, 1}
    for before, after in zip(rows_of(embedded), rows_of(run), strict=True):
        assert after["loss"] == pytest.approx(before["loss"], abs=1e-5)
        assert after["grad_norm"] == pytest.approx(before["grad_norm"], rel=1e-3)
        assert after["rewright/sampler_gap_max"] == 0.0
        assert after["sampling/importance_sampling_ratio/mean"] == pytest.approx(1.0, abs=1e-4)


def test_two_processes_train_with_one_server_as_one_does(embedded: Run, tmp_path: Path) -> None:
    """The main process generates all rollouts and sends the weights; each process has its rows."""
    calls: list[str] = []
    with served(lambda: vllm_like_server("pico", calls)) as url:
        said, run = trained(tmp_path, "rl.engine=server", f"rl.server.base_url={url}/v1", "training.processes=2")
        assert said.code == 0, said.errors
    assert calls == LOAD * 2
    pairs = list(zip(embedded.rollouts, run.rollouts, strict=True))
    assert [[turn.token_ids for turn in left.turns] for left, _ in pairs] == [
        [turn.token_ids for turn in right.turns] for _, right in pairs
    ]
    for before, after in zip(rows_of(embedded), rows_of(run), strict=True):
        assert after["loss"] == pytest.approx(before["loss"], abs=1e-5)
        assert after["rewright/success"] == before["rewright/success"]
        assert after["rewright/sampler_gap_max"] == 0.0


@pytest.mark.slow
def test_divided_weights_are_gathered_for_the_servers(embedded: Run, tmp_path: Path) -> None:
    """FSDP2: each process has a part of the weights, and the engine hf is refused there."""
    (tmp_path / "fsdp.yaml").write_text(FSDP)
    with served(lambda: vllm_like_server("pico", [])) as url:
        said, run = trained(
            tmp_path, "rl.engine=server", f"rl.server.base_url={url}/v1", "training.accelerate=fsdp.yaml"
        )
        assert said.code == 0, said.errors
    assert [row["rewright/sampler_gap_max"] for row in rows_of(run)] == [0.0, 0.0]  # with the weights of its step
    ours, theirs = ([[turn.token_ids for turn in one.turns] for one in made.rollouts] for made in (run, embedded))
    assert ours[:4] == theirs[:4]


def test_another_precision_shows_as_a_gap_and_is_corrected(tmp_path: Path) -> None:
    with served(lambda: vllm_like_server("pico", [], dtype="bfloat16")) as url:
        said, run = trained(
            tmp_path, "rl.engine=server", f"rl.server.base_url={url}/v1", "rl.lora_rank=4", "rl.steps=1",
            "rl.entropy=-0.5",
            "rl.arguments={vllm_importance_sampling_clip_max: 1.001}",
        )  # fmt: skip
        assert said.code == 0, said.errors
    (row,) = rows_of(run)
    assert 0 < row["rewright/sampler_gap_mean"] < row["rewright/sampler_gap_max"]
    assert row["sampling/sampling_logp_difference/max"] == pytest.approx(row["rewright/sampler_gap_max"], abs=1e-3)
    assert row["sampling/importance_sampling_ratio/max"] == pytest.approx(1.001)


def test_a_server_that_dies_in_rl_is_dropped_and_the_run_ends(tmp_path: Path) -> None:
    calls: list[str] = []
    with (
        served(lambda: vllm_like_server("pico", calls)) as url,
        served(lambda: vllm_like_server("pico", [], die_at=4)) as mortal,
    ):
        said, run = trained(tmp_path, "rl.engine=server", f"rl.server.base_url=[{mortal}/v1, {url}/v1]")
        assert said.code == 0, said.errors
    assert next(line for line in said.errors.splitlines() if "is dropped: " in line).startswith(
        f"{mortal}/v1 is dropped"
    )
    assert not [one for one in run.rollouts if one.failure is not None] and len(rows_of(run)) == 2


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["rl.engine=server"], "rl.server.base_url is missing: expected the address of a vLLM server"),
        (["rl.server.base_url=http://127.0.0.1:9"], "rl.server has no effect: rl.engine is hf"),
        (["rl.engine=vlm"], "rl.engine: "),
        (["rl.engine=server", "rl.server.base_url=localhost"], "rl.server.base_url: a server: expected an address"),
        (["rl.engine=server", "rl.server.base_url=http://h", "rl.top_p=0.9"], "rl.top_p is 0.9: expected 1 with"),
        (["rl.engine=server", "rl.server={base_url: 'http://h', folder: /no/such}"], "rl.server: /no/such is not a"),
        (["rl.engine=vllm"], "rl.engine: vllm needs the package vllm, which is not installed: pip install"),
        (["rl.engine=colocate"], "rl.engine: colocate needs the package vllm"),
        (["rl.engine=vllm", "rl.top_p=0.9"], "rl.top_p is 0.9: expected 1 with rl.engine: vllm"),
        (["rl.vllm.max_model_len=512"], "rl.vllm has no effect: rl.engine is hf"),
        (["rl.arguments={use_vllm: true}"], "use_vllm has no effect, since Rewright generates the rollouts"),
        (["stages=[eval_base]", "model={path: pico, engine: vllm}"], "model.engine: vllm needs the package vllm"),
    ],
)
def test_wrong_settings_are_one_line_before_the_run(tmp_path: Path, overrides: list[str], words: str) -> None:
    said, _ = trained(tmp_path, *overrides)
    said.refused(words)
    assert not (tmp_path / "run").exists()


def test_an_engine_without_log_probs_is_refused_before_a_rollout(tmp_path: Path) -> None:
    with served(lambda: vllm_like_server("pico", [], log_probs=False)) as url:
        said, run = trained(tmp_path, "rl.engine=server", f"rl.server.base_url={url}/v1")
    assert said.code in (1, 2) and "Traceback" not in said.errors
    assert "returned no log-probs" in said.errors.splitlines()[-1]
    assert not list(run.rollouts)


def test_a_server_without_the_development_endpoints_is_named(tmp_path: Path) -> None:
    from support.chat_server import chat_server, says

    with served(lambda: chat_server(lambda _: says("hello"))) as url:
        said, _ = trained(tmp_path, "rl.engine=server", f"rl.server.base_url={url}/v1")
    assert said.code == 1 and "Traceback" not in said.errors
    assert "expected a vLLM server with VLLM_SERVER_DEV_MODE=1" in said.errors.splitlines()[-1]
    assert json.dumps(said.errors).count("DEV_MODE") <= 2


def test_adapters_are_merged_for_the_engine_and_the_model_is_left_as_it_is() -> None:
    """As peft merges them, without taking them out again, which would round the weights."""
    import copy

    import torch
    from peft import LoraConfig, get_peft_model

    from rewright.engines.embedded import HFSettings
    from rewright.engines.loading import load_model
    from rewright.training.trl.weights import checkpoint_weights

    plain = load_model(HFSettings(path="pico"))
    names = [name for name, _ in plain.named_parameters()]
    model = get_peft_model(plain, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    made = dict(checkpoint_weights(model))
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    merged = dict(copy.deepcopy(model).merge_and_unload().named_parameters())
    assert list(made) == names == list(merged)
    for name, weight in made.items():
        torch.testing.assert_close(weight, merged[name].detach())
    inner = "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"
    assert not torch.equal(made["model.layers.0.self_attn.q_proj.weight"], before[inner])


def test_rl_says_once_what_is_wrong_with_most_rollouts(tmp_path: Path) -> None:
    """Four rollouts a step are judged every second step."""
    said, _ = trained(tmp_path, "limits.turn_tokens=24", "rl.steps=4", "rl.learning_rate=1.0e-6")
    lines = [line for line in said.errors.splitlines() if line.startswith("warning: rl: ")]
    assert "warning: rl: 8 of the 8 rollouts of steps 1 to 2 are cut off by a limit: limits.turn_tokens is 24" in lines
    assert all("of the 8 rollouts of steps 1 to 2 are" in line for line in lines)


def test_rl_with_few_rollouts_says_it_at_its_end(tmp_path: Path) -> None:
    said, _ = trained(tmp_path, "limits.turn_tokens=24", "rl.steps=1")
    assert "warning: rl: 4 of the 4 rollouts of step 1 are cut off by a limit: limits.turn_tokens is 24" in said.errors
