"""Judges score a trajectory's final answer. Each task names its judge in `Task.judge`."""

from rewright.judging.base import AnswerJudge, Judgement, TrajectoryJudge
from rewright.judging.judges import judge_answer, judge_trajectory, reason_without_gold

__all__ = ["AnswerJudge", "Judgement", "TrajectoryJudge", "judge_answer", "judge_trajectory", "reason_without_gold"]
