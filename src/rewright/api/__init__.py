"""The Python API, re-exported by `import rewright as rw`: each function does what a stage or a command does."""

from rewright.api.datasets import build_pairs, build_sft
from rewright.api.logs import Logs, load_logs
from rewright.api.repairs import Repaired, repair, repair_sync
from rewright.api.rollouts import rollout, rollout_sync
from rewright.api.runs import Run
from rewright.api.tasks import load_tasks
from rewright.api.turn_credit import CallCredit, TrajectoryCredit, credit
from rewright.api.verdicts import judge, score
from rewright.tools.own import Tool, tool

__all__ = [
    "CallCredit",
    "Logs",
    "Repaired",
    "Run",
    "Tool",
    "TrajectoryCredit",
    "build_pairs",
    "build_sft",
    "credit",
    "judge",
    "load_logs",
    "load_tasks",
    "repair",
    "repair_sync",
    "rollout",
    "rollout_sync",
    "score",
    "tool",
]
