"""examples/trl_two_lines.py runs as it stands, on the model that ships."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

pytest.importorskip("trl")

EXAMPLE = Path(__file__).parents[2] / "examples" / "trl_two_lines.py"
VERSION = tuple(map(int, transformers.__version__.split(".")[:2]))


@pytest.mark.skipif(VERSION < (5, 13), reason="transformers before 5.13 do not read a response_template")
def test_the_example_trains_the_model_that_ships_and_shows_what_turns_earn(tmp_path):
    command = [sys.executable, str(EXAMPLE), "--steps", "1", "--tasks", "1", "--cpu", "--output", str(tmp_path / "out")]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    row = re.search(r"^ +1 +(\d+)% +([\d.]+) +([\d.]+) +([\d.]+)$", done.stdout, re.MULTILINE)
    assert row is not None, done.stdout
    assert float(row[4]) > 0, "TRL reads the calls of pico"
    best = done.stdout.partition("the best attempt")[2].partition("the worst attempt")[0]
    assert re.search(r"^ +1\.00  'get_age\(\{\"person\": ", best, re.MULTILINE), best


def test_two_lines_are_not_trl_s():
    text = EXAMPLE.read_text(encoding="utf-8")
    assert text.count("# line 1") == text.count("# line 2") == 1
    marked = [line for line in text.splitlines() if "turn_credit=" in line or "from rewright" in line]
    assert len(marked) == 2
