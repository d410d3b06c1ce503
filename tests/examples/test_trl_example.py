"""examples/trl_two_lines.py runs as it stands, on a tiny random model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")
from support.tiny_llama import make_tiny_llama

EXAMPLE = Path(__file__).parents[2] / "examples" / "trl_two_lines.py"


def test_the_example_trains_and_logs_turn_credit(tmp_path):
    model = make_tiny_llama(tmp_path / "model")
    command = [sys.executable, str(EXAMPLE), "--model", str(model), "--steps", "1", "--tokens", "24", "--cpu",
               "--output", str(tmp_path / "out")]  # fmt: skip
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "turn_credit/reward_mean" in done.stdout


def test_two_lines_are_not_trl_s():
    text = EXAMPLE.read_text(encoding="utf-8")
    assert text.count("# line 1") == text.count("# line 2") == 1
    marked = [line for line in text.splitlines() if "turn_credit=" in line or "from rewright" in line]
    assert len(marked) == 2
