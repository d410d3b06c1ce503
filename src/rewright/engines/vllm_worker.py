"""What a vLLM server needs to take new weights from a file: a worker extension.

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs \\
        --worker-extension-cls rewright.engines.vllm_worker.LoadFile

Rewright must be importable where vLLM runs (`pip install --no-deps rewright`). Written after vLLM 0.32.
"""

from __future__ import annotations

from typing import Any

__all__ = ["LoadFile"]


class LoadFile:
    """Adds `load_file` and `load_named` to every worker of vLLM, which `collective_rpc` calls."""

    model_runner: Any
    reload_weights: Any

    def load_file(self, path: str) -> int:
        """Replace the weights by those of a safetensors file with the names of a checkpoint. Returns their number."""
        from safetensors.torch import load_file

        return self.load_named(list(load_file(path).items()))

    def load_named(self, weights: list[tuple[str, Any]]) -> int:
        """Replace the weights by tensors of this process, by their names in a checkpoint. Returns their number."""
        # Not `model.load_weights`: kernels that repack weights (float32, bfloat16 on a CPU) have nothing to write to.
        self.reload_weights(weights_iterator=iter(weights))
        head = getattr(self.model_runner.get_model(), "lm_head", None)
        if hasattr(head, "cpu_linear"):
            # On a CPU, vLLM 0.32 keeps the old packed copy of a head that is tied to the embeddings.
            from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

            dispatch_cpu_unquantized_gemm(head, remove_weight=False)
        return len(weights)
