"""verl's checkpoints of an RL training (FSDP): which is the newest complete one."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Final

__all__ = ["keep_complete", "last_step", "weights_folder"]

TRACKER: Final = "latest_checkpointed_iteration.txt"
PARTS: Final = ("model", "optim", "extra_state")


def keep_complete(folder: Path, processes: int) -> int:
    """Make verl resume from the newest complete checkpoint, and remove the others. Returns its step; 0: none.

    verl writes the parts of a checkpoint one after the other, and then the number of its step into another file. If it
    is killed in between, it would go on with another step's data, or fail.

    Args:
        folder: verl's `trainer.default_local_dir`.
        processes: number of training workers; each writes its parts.
    """
    found = sorted((_step(path), path) for path in folder.glob("global_step_*") if path.is_dir())
    complete = [step for step, path in found if _is_complete(path, processes)]
    last = complete[-1] if complete else 0
    for step, path in found:
        if step != last:
            shutil.rmtree(path, ignore_errors=True)
    if last:
        (folder / TRACKER).write_text(str(last), encoding="ascii")
    else:
        (folder / TRACKER).unlink(missing_ok=True)
    return last


def last_step(folder: Path, processes: int) -> int:
    """The step of the newest complete checkpoint; 0: there is none. Changes nothing."""
    return max((_step(path) for path in folder.glob("global_step_*") if _is_complete(path, processes)), default=0)


def weights_folder(folder: Path, step: int) -> Path:
    """The folder of a checkpoint with the policy's weights."""
    return folder / f"global_step_{step}" / "actor"


def _is_complete(checkpoint: Path, processes: int) -> bool:
    ranks = [f"world_size_{processes}_rank_{rank}.pt" for rank in range(processes)]
    parts = [checkpoint / "actor" / f"{part}_{rank}" for part in PARTS for rank in ranks]
    # torch's files are zip archives, whose directory is written last.
    written = all(zipfile.is_zipfile(path) for path in (*parts, checkpoint / "data.pt"))
    return written and (checkpoint / "actor/huggingface/config.json").is_file()


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.removeprefix("global_step_")
    return int(number) if number.isdecimal() else -1
