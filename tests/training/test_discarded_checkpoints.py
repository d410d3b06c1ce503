"""Checkpoints are removed all or not at all, wherever the process that removes them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rewright.training.checkpoints import checkpoint_folder, discard_checkpoints

FILES = ("checkpoint-3/model.safetensors", "checkpoint-3/optimizer.pt", "checkpoint-3/trainer_state.json", "wandb.json")
KILLED_AT_A_REMOVAL = """
import os, signal, sys
from pathlib import Path
from rewright.training.checkpoints import discard_checkpoints

removals = 0

def hook(event, arguments):
    global removals
    if event in ("os.remove", "os.rmdir"):
        removals += 1
        if removals == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
discard_checkpoints(Path(sys.argv[1]))
"""


def stored(model: Path) -> list[str]:
    folder = checkpoint_folder(model)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("removal", range(1, len(FILES) + 3))  # and two folders
def test_a_kill_leaves_all_checkpoints_or_none(removal: int, tmp_path: Path) -> None:
    model = tmp_path / "sft"
    for name in FILES:
        path = checkpoint_folder(model) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    command = [sys.executable, "-c", KILLED_AT_A_REMOVAL, str(model), str(removal)]
    assert subprocess.run(command, env=os.environ, check=False).returncode == -signal.SIGKILL
    assert stored(model) in ([], sorted(FILES))

    discard_checkpoints(model)
    assert not list(tmp_path.iterdir()), "what the killed process left is removed, too"
    discard_checkpoints(model)  # there is nothing to remove


def test_files_of_other_models_stay(tmp_path: Path) -> None:
    (checkpoint_folder(tmp_path / "sft") / "checkpoint-1").mkdir(parents=True)
    (checkpoint_folder(tmp_path / "rl") / "checkpoint-1").mkdir(parents=True)
    discard_checkpoints(tmp_path / "sft")
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint_folder(tmp_path / "rl").name]
