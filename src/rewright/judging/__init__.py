"""Judges: whether a trajectory's answer is right. One judge per task, named by `Task.judge`."""

from rewright.judging.base import AnswerJudge, Judgement, TrajectoryJudge
from rewright.judging.judges import judge_answer, judge_trajectory

__all__ = ["AnswerJudge", "Judgement", "TrajectoryJudge", "judge_answer", "judge_trajectory"]
