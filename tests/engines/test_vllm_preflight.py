"""What is refused of vLLM before a run: its version, the transformers that it takes, and arguments that it lacks.

The package here is empty: its metadata are those of a vLLM, which is what is read of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from support import in_process  # noqa: E402

RECIPE = """\
name: preflight
model: {path: pico}
stages: [rl]
tasks: {format: town, split: train, profile: short, count: 4}
rl: {engine: vllm, steps: 1, tasks_per_step: 2, generations: 2}
"""
ARGUMENTS = """\
class AsyncEngineArgs:
    __dataclass_fields__ = {"block_size": None, "seed": None}
"""


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    for name in [one for one in sys.modules if one.split(".")[0] == "vllm"]:
        del sys.modules[name]


def install(folder: Path, patch: pytest.MonkeyPatch, version: str, needs: str = "transformers") -> None:
    """A distribution of vLLM in `folder` that can be imported."""
    import trl.trainer.grpo_trainer  # noqa: F401 - before there is an empty vllm, which it would import from

    for name, text in {
        "vllm/__init__.py": "",
        "vllm/engine/__init__.py": "",
        "vllm/engine/arg_utils.py": ARGUMENTS,
        f"vllm-{version}.dist-info/METADATA": f"Name: vllm\nVersion: {version}\nRequires-Dist: {needs}\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    patch.syspath_prepend(folder)


@pytest.mark.parametrize(
    ("version", "needs", "overrides", "words"),
    [
        ("0.28.1", "transformers", (), "rl.engine: vllm: vllm 0.28.1 is installed: expected vllm>=0.32,<0.33"),
        ("0.33.0", "transformers", (), "rl.engine: vllm: vllm 0.33.0 is installed: expected vllm>=0.32,<0.33"),
        (
            "0.32.0", "transformers<5.1",
            ("stages=[eval_base]", "model.engine=vllm"),
            "model.engine: vllm: vllm 0.32.0 does not run with transformers",
        ),
        ("0.32.1", "transformers", ("rl.vllm.arguments={blok_size: 16}",), "no argument blok_size: did you mean"),
        ("0.32.1", "transformers", ("rl.vllm.arguments={logprobs_mode: raw}",), "logprobs_mode is set by Rewright"),
        ("0.32.1", "transformers", ("rl.vllm.arguments={max_num_seqs: 8}",), "max_num_seqs is a key of rl.vllm"),
        ("0.32.1", "transformers", ("rl.vllm.arguments={enable_sleep_mode: true}",), "expected rl.vllm.sleep instead"),
        (
            "0.32.1", "transformers",
            ("rl.engine=colocate", "rl.vllm.tensor_parallel_size=2"),
            "rl.vllm.tensor_parallel_size is 2",
        ),
        ("0.32.1", "transformers", ("rl.engine=colocate", "rl.vllm.weights=ipc"), "colocate shares the memory of"),
        ("0.32.1", "transformers", ("rl.vllm.gpu_memory_utilization=1.5",), "gpu_memory_utilization"),
    ],
)  # fmt: skip
def test_a_vllm_that_would_not_run_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, needs: str, overrides: tuple[str, ...], words: str
) -> None:
    install(tmp_path / "site", monkeypatch, version, needs)
    (tmp_path / "r.yaml").write_text(RECIPE)
    in_process.rewright(tmp_path, "run", "r.yaml", "--run", "run", "--dry-run", *overrides).refused(words)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("key", ["sleep=true", "weights=ipc"])
def test_what_needs_a_gpu_is_said_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    install(tmp_path / "site", monkeypatch, "0.32.0")
    (tmp_path / "r.yaml").write_text(RECIPE)
    said = in_process.rewright(tmp_path, "run", "r.yaml", "--run", "run", f"rl.vllm.{key}")
    said.refused(f"rl.vllm.{key.replace('=', ' is ')}: it needs a GPU, and this machine has none")
