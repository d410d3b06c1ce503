"""Start two emulated Ray nodes with one logical GPU each, and run a command with `RAY_ADDRESS`: two_ray_nodes.py …"""

import os
import subprocess
import sys

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 9, "num_gpus": 1, "object_store_memory": 200_000_000}


def main(command: list[str]) -> int:
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        added = [f"+ray_kwargs.ray_init.address={cluster.address}"]
        return subprocess.call([*command, *added], env=os.environ | {"RAY_ADDRESS": cluster.address})
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
