"""A Ray cluster of several nodes on this machine, in a process of the environment with verl.

`python ray_nodes.py FOLDER NODES` prints the address, and ends with its standard input. Each node has one logical GPU.
Each line of its input is done and answered: `lose` kills the newest node, `join` adds one.
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

__all__ = ["Nodes", "cluster"]

NODE = {"num_cpus": 10, "num_gpus": 1, "object_store_memory": 200_000_000}


class Nodes:
    """A running cluster."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._answer("address")

    def lose(self) -> None:
        """Kill the processes of the node that was added last, as a machine that loses its power."""
        self._ask("lose")

    def join(self) -> None:
        """Add a node."""
        self._ask("join")

    def _ask(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        self._answer(what)

    def _answer(self, word: str) -> str:
        assert self._process.stdout is not None
        line = next((line for line in self._process.stdout if line.startswith(word + " ")), "")
        assert line, f"no cluster: {word}"
        return line.split()[1]


@contextmanager
def cluster(python: str, nodes: int, environment: dict[str, str]) -> Iterator[Nodes]:
    """A running cluster."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    process = subprocess.Popen(
        [python, __file__, folder, str(nodes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdin is not None
    try:
        yield Nodes(process)
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
    added = [started.add_node(**options) for _ in range(nodes - 1)]
    started.wait_for_nodes()
    print("address", started.address, flush=True)
    for line in sys.stdin:
        if line == "lose\n":
            started.remove_node(added.pop(), allow_graceful=False)
        else:
            added.append(started.add_node(**options))
            started.wait_for_nodes()
        print(line.strip(), "done", flush=True)
    started.shutdown()


if __name__ == "__main__":
    main()
