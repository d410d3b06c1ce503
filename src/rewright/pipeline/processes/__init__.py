"""Training stages as groups of processes: the side that launches them, and what runs in each of them.

`rewright run` holds the run directory and its lock. It launches `rewright.pipeline.processes.worker` with torchrun (or
`accelerate launch`), sends each process its job through a Unix socket, and shows and stores what comes back: progress,
notices, rollouts, metrics. The socket also ties both sides together: a process of the group ends if it closes, and its
launcher learns at once that a process has ended.
"""

from rewright.pipeline.processes.trainer import trainer

__all__ = ["trainer"]
