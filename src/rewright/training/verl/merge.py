"""verl's model merger with float32 weights: `python merge.py merge --backend fsdp --local_dir ... --target_dir ...`.

verl 0.9.1 rounds the weights of a checkpoint to bfloat16 when it merges them, which undoes most of an update with a
small learning rate. Started as a file, in the interpreter with verl.
"""

from __future__ import annotations

from typing import Any


def main() -> None:
    """Run `python -m verl.model_merger` without the rounding."""
    import torch
    from verl.model_merger.__main__ import main as merge

    def unrounded(tensor: Any, *_: Any, **__: Any) -> Any:
        return tensor.clone()

    torch.Tensor.bfloat16 = unrounded  # type: ignore[method-assign, assignment]
    merge()


if __name__ == "__main__":
    main()
