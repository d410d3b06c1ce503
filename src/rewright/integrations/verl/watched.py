"""verl's manager of agent loop workers, which ends the trainer if one of them dies.

verl's workers report finished rollouts through a queue, and nothing waits for the workers themselves: without one of
them the trainer polls the queue forever. Selected by `actor_rollout_ref.rollout.agent.agent_loop_manager_class`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import ray
from ray.exceptions import RayActorError
from verl.trainer.ppo.v1 import AgentLoopManagerTQ

__all__ = ["WatchedAgentLoopManager", "watch"]

POLL_SECONDS: Final = 5.0


class WatchedAgentLoopManager(AgentLoopManagerTQ):  # type: ignore[misc]
    """`AgentLoopManagerTQ` with a watch on its workers."""

    async def _init_agent_loop_workers(self) -> None:
        await super()._init_agent_loop_workers()
        threading.Thread(target=watch, args=(tuple(self.agent_loop_workers),), daemon=True).start()


def watch(workers: Sequence[Any]) -> None:
    """Return never; end this process, the trainer's, when one of the Ray actors `workers` is dead."""
    while True:
        time.sleep(POLL_SECONDS)
        try:
            ray.get([worker.__ray_ready__.remote() for worker in workers])
        except RayActorError as problem:
            print(problem, file=sys.stderr)
            print("WorkerError: an agent loop worker has died (killed, or out of memory)", file=sys.stderr, flush=True)
            os._exit(1)
