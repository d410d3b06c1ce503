"""Judges: whether a trajectory's answer is right. One answer checker per kind, named by `Task.judge`."""

from rewright.judging.base import Judgement
from rewright.judging.judges import JUDGE_NAMES, judge_answer, judge_trajectory

__all__ = ["JUDGE_NAMES", "Judgement", "judge_answer", "judge_trajectory"]
