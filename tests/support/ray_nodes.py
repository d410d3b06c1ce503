"""A Ray cluster of several nodes on this machine, in a process of the environment with verl.

`python ray_nodes.py FOLDER NODES` prints the address, and ends with its standard input. Each node has one logical GPU.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["cluster"]

NODE = {"num_cpus": 10, "num_gpus": 1, "object_store_memory": 200_000_000}


@contextmanager
def cluster(python: str, nodes: int, environment: dict[str, str]) -> Iterator[str]:
    """A running cluster; its address."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    process = subprocess.Popen(
        [python, __file__, folder, str(nodes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        address = next((line.split()[1] for line in process.stdout if line.startswith("address ")), "")
        assert address, "no cluster"
        yield address
    finally:
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Start the cluster, and stop it when standard input is closed."""
    folder, nodes = sys.argv[1], int(sys.argv[2])
    os.environ["RAY_TMPDIR"] = folder  # of the file with the address of the last cluster, which is not only ours
    os.makedirs(f"{folder}/ray", exist_ok=True)  # noqa: PTH103
    from ray.cluster_utils import Cluster

    options: dict[str, Any] = {**NODE, "temp_dir": folder}
    started = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    for _ in range(nodes - 1):
        started.add_node(**options)
    started.wait_for_nodes()
    print("address", started.address, flush=True)
    sys.stdin.read()
    started.shutdown()


if __name__ == "__main__":
    main()
