"""Train models in this process and print by how many bytes its resident set grew at most each time, as JSON lines.

python peak_memory.py RUN …, in the folder of the recipes sft.yaml and rl.yaml; RUN is STAGE=MODEL. The first run of
each stage loads what stays: libraries, kernels, threads, tools.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from pathlib import Path

from rewright.cli import main as cli


def resident(name: str) -> int:
    """Bytes of this process by a name of /proc/self/status: VmRSS, or VmHWM for the peak."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


def run(*arguments: str) -> None:
    """`rewright run ...` in this process."""
    sys.argv = ["rewright", "run", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code, end.code


if __name__ == "__main__":
    for number, wanted in enumerate(sys.argv[1:]):
        stage, _, model = wanted.partition("=")
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # memory that earlier runs have freed
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        start = resident("VmRSS")
        run(f"{stage}.yaml", "--run", f"run{number}", f"model.path={model}")
        print("grown", json.dumps({"run": wanted, "bytes": resident("VmHWM") - start}), flush=True)
