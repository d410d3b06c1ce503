"""scripts/gpu_check.sh with small sizes: every part runs on a CPU, and the JSON holds what the page quotes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_check.sh"
MODELS = ("random-qwen3-0.6b", "pico")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(
        ["sh", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, check=False, timeout=500
    )


def test_tiny_sizes_run_every_part(tmp_path: Path) -> None:
    done = run("--tiny", "--out", str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text())
    assert found["complete"] is True
    parts = found["parts"]
    assert parts.keys() == {
        *(f"{model}/{part}" for model in MODELS for part in ("sft", "reward", "rl", "engine")),
        "random-qwen3-0.6b/against_trl",
    }
    for model in MODELS:
        for part in ("sft", "rl"):
            assert parts[f"{model}/{part}"]["share_changed"] > 0.99
        assert parts[f"{model}/reward"]["share_changed"] > 0.1
        assert len(parts[f"{model}/rl"]["step_seconds"]) == 3
        for engine in (parts[f"{model}/engine"][key] for key in ("top_p=1.0", "top_p=0.9")):
            assert engine["tokens"] == 4 * 8
            assert 0 < engine["sampling_share"] < 1
    compared = parts["random-qwen3-0.6b/against_trl"]
    assert compared["rewright"]["generated_tokens"] == compared["trl"]["generated_tokens"] == 2 * 2 * 2 * 8
    assert all(part["peak_gib"] > 0 for part in parts.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_refused_in_one_line(tmp_path: Path) -> None:
    done = run("--out", str(tmp_path / "found.json"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == ["error: no GPU that torch can use: expected one, or --tiny"]
    assert not list(tmp_path.iterdir())
