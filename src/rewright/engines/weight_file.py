"""The current weights of a trained model as a file that other processes load."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from rewright.core.errors import EngineError, InputError
from rewright.engines.base import NamedWeights

__all__ = ["WeightFile"]

MEMORY: Final = Path("/dev/shm")


class WeightFile:
    """A safetensors file, which is replaced by that of the next version.

    `folder`: for the file; default: memory (/dev/shm), else the temporary folder. Raises InputError if it is none.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        default = MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir())
        self._folder = default if folder is None else Path(folder)
        if not self._folder.is_dir():
            raise InputError(f"{self._folder} is not a folder: expected one that the vLLM servers can read")
        self._held: tempfile.TemporaryDirectory[str] | None = None
        self.path = self._folder

    def write(self, named: NamedWeights, version: int) -> Path:
        """Write the weights and delete those of the version before. Returns the path. Raises EngineError."""
        from safetensors.torch import save_file

        self.delete()  # no engine needs it: all get the new one
        held = tempfile.TemporaryDirectory(prefix="rewright-weights-", dir=self._folder)
        path = Path(held.name) / f"{version}.safetensors"
        try:
            save_file({name: value.detach().cpu().contiguous() for name, value in named}, path)
        except Exception as problem:
            held.cleanup()
            reason = getattr(problem, "strerror", None) or problem
            raise EngineError(f"cannot write the weights to {path}: {reason}") from problem
        Path(held.name).chmod(0o755)  # vLLM may run as another user
        self._held, self.path = held, path
        return path

    def delete(self) -> None:
        """Delete the file."""
        held, self._held = self._held, None
        if held is not None:
            held.cleanup()
